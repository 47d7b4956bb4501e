"""Graphs in the cache: built once for a model's weights and adapters, checked at every start, rebuilt if damaged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pengi import weights
from pengi.runtime.llama import FORMAT, Adapter

PREFIX = "decoder-"
MAX_GRAPHS = 4
"""Models whose graphs are kept."""


def built(folder: Path, adapters: Mapping[str, Adapter]) -> Path:
    """The folder of a model's graphs.

    Raises:
        WeightsError: if it cannot be written.
    """

    def make(target: Path) -> None:
        from pengi.runtime.graph import build  # imports onnx, which a start with finished graphs does not need

        build(folder, target, adapters)

    graphs = weights.derived(f"{PREFIX}{_key(folder, adapters)[:24]}", make)
    _keep_recent(graphs)
    return graphs


def _keep_recent(used: Path) -> None:
    """Delete graphs that were not used for longest; a training would leave some for each of its checkpoints."""
    os.utime(used)
    folders = sorted(used.parent.glob(f"{PREFIX}*"), key=lambda folder: folder.stat().st_mtime)
    for folder in folders[:-MAX_GRAPHS]:
        shutil.rmtree(folder, ignore_errors=True)  # another process may have it open, or delete it, too


def _key(folder: Path, adapters: Mapping[str, Adapter]) -> str:
    """A hash of all that the graphs are made of."""
    digest = hashlib.sha256()
    config = (folder / "config.json").read_bytes()
    parts = [FORMAT, hashlib.sha256(config).hexdigest(), weights.known_sha256(folder / "model.safetensors")]
    digest.update(json.dumps(parts).encode())
    for name, tensors in sorted(adapters.items()):
        digest.update(name.encode())
        for tensor in tensors:
            digest.update(str(tensor.shape).encode())
            digest.update(tensor.tobytes())
    return digest.hexdigest()
