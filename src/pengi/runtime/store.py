"""Graphs in the cache: built once for a model's weights and adapters, checked at every start, rebuilt if damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from pengi import weights
from pengi.runtime import graph


def built(folder: Path, adapters: Mapping[str, graph.Adapter]) -> Path:
    """The folder of a model's graphs.

    Raises:
        WeightsError: if it cannot be written.
    """
    name = f"decoder-{_key(folder, adapters)[:24]}"
    return weights.derived(name, lambda target: graph.build(folder, target, adapters))


def _key(folder: Path, adapters: Mapping[str, graph.Adapter]) -> str:
    """A hash of all that the graphs are made of."""
    digest = hashlib.sha256()
    config = (folder / "config.json").read_bytes()
    facts = [graph.FORMAT, hashlib.sha256(config).hexdigest(), weights.file_hash(folder / "model.safetensors")]
    digest.update(json.dumps(facts).encode())
    for name, tensors in sorted(adapters.items()):
        digest.update(name.encode())
        for tensor in tensors:
            digest.update(str(tensor.shape).encode())
            digest.update(tensor.tobytes())
    return digest.hexdigest()
