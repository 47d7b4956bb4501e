"""Graphs in the cache: built once for a model's weights and adapters, checked at every start, rebuilt if damaged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pengi import weights
from pengi.runtime.architecture import FORMAT, Adapter

PREFIX = "decoder-"
MAX_GRAPHS = 4
"""Number of models whose graphs are kept."""


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


def newest() -> Path | None:
    """The folder of the graphs that were used last; None if there are none, or they are damaged."""
    folders = _by_age(weights.cache_folder())
    return folders[-1] if folders and weights.damage(folders[-1], by_hash=False) is None else None


def _keep_recent(used: Path) -> None:
    """Delete the least recently used graphs; otherwise a training run would leave some for each checkpoint."""
    os.utime(used)
    for folder in _by_age(used.parent)[:-MAX_GRAPHS]:
        shutil.rmtree(folder, ignore_errors=True)  # another process may have it open, or delete it, too


def _by_age(cache: Path) -> list[Path]:
    """All folders of graphs, the most recently used one last."""
    return sorted(cache.glob(f"{PREFIX}*"), key=lambda folder: folder.stat().st_mtime)


def _key(folder: Path, adapters: Mapping[str, Adapter]) -> str:
    """A hash of everything that the graphs depend on."""
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
