"""Graphs in the cache: built once for a model's weights and adapters, checked at every start, rebuilt if damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from pengi import weights
from pengi.runtime.llama import FORMAT, Adapter


def built(folder: Path, adapters: Mapping[str, Adapter]) -> Path:
    """The folder of a model's graphs.

    Raises:
        WeightsError: if it cannot be written.
    """

    def make(target: Path) -> None:
        from pengi.runtime.graph import build  # imports onnx, which a start with finished graphs does not need

        build(folder, target, adapters)

    return weights.derived(f"decoder-{_key(folder, adapters)[:24]}", make)


def _key(folder: Path, adapters: Mapping[str, Adapter]) -> str:
    """A hash of all that the graphs are made of."""
    digest = hashlib.sha256()
    config = (folder / "config.json").read_bytes()
    facts = [FORMAT, hashlib.sha256(config).hexdigest(), weights.file_hash(folder / "model.safetensors")]
    digest.update(json.dumps(facts).encode())
    for name, tensors in sorted(adapters.items()):
        digest.update(name.encode())
        for tensor in tensors:
            digest.update(str(tensor.shape).encode())
            digest.update(tensor.tobytes())
    return digest.hexdigest()
