"""Checks that files in the cache are unchanged since they were put there.

``files.json`` beside them holds the size, modification time and SHA-256 of each file. When a model is loaded, sizes and
times are compared, and only files with another time are hashed; :func:`problems` can hash all files. A folder of an
earlier version, which has no such record, gets one when it is first used, if its files can be read.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pengi.errors import first_line
from pengi.hashes import file_sha256
from pengi.writing import replacing

RECORD_FILE = "files.json"
_READABLE = 0o644


def record(folder: Path) -> None:
    """Write the record of a folder's files, and make the files readable for all who may read the folder."""
    for name in _names(folder):
        (folder / name).chmod(_READABLE)
    found = {name: _entry(folder / name, file_sha256(folder / name)) for name in _names(folder)}
    _write(folder, found)


def problems(folder: Path, *, by_hash: bool) -> dict[str, str | None]:
    """Path in the folder -> what is wrong with the file, or None, for every file of a folder.

    Args:
        folder: in the cache.
        by_hash: read all files, not only those whose modification time has changed.
    """
    known = _read(folder)
    if known is None:
        found = {name: unreadable(folder / name) for name in _names(folder)}
        if os.access(folder, os.W_OK) and not any(found.values()):
            record(folder)
        return found
    found = {name: _problem(folder / name, entry, by_hash=by_hash) for name, entry in known.items()}
    moved = [name for name, entry in known.items() if not found[name] and _time(folder / name) != entry["mtime_ns"]]
    if moved and os.access(folder, os.W_OK):  # a copied cache is hashed only once
        _write(folder, known | {name: _entry(folder / name, known[name]["sha256"]) for name in moved})
    return found


def damage(folder: Path, *, by_hash: bool = False) -> str | None:
    """A sentence about the first file that has changed; None if there is none."""
    found = ((name, problem) for name, problem in problems(folder, by_hash=by_hash).items() if problem is not None)
    return next((f"'{folder / name}' is damaged: {problem}" for name, problem in found), None)


def known_sha256(file: Path) -> str:
    """SHA-256 of a file; the recorded one if its size and modification time match the record."""
    entry = (_read(file.parent) or {}).get(file.name)
    if entry is not None and (entry["size"], entry["mtime_ns"]) == (file.stat().st_size, _time(file)):
        return str(entry["sha256"])
    return file_sha256(file)


def unreadable(file: Path) -> str | None:
    """Why a file of weights or JSON cannot be read as what its extension says; None if it can."""
    from safetensors import SafetensorError, safe_open

    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "numpy"):
                pass
        elif file.suffix == ".json":
            json.loads(file.read_bytes())
    except (SafetensorError, ValueError) as error:
        return f"it cannot be read ({first_line(error)})"
    return None


def _problem(file: Path, entry: dict[str, Any], *, by_hash: bool) -> str | None:
    if not file.is_file():
        return "it is missing"
    size = file.stat().st_size
    if size != entry["size"]:
        return f"it has {size} of {entry['size']} bytes"
    if (by_hash or _time(file) != entry["mtime_ns"]) and file_sha256(file) != entry["sha256"]:
        return "its content has changed"
    return None


def _names(folder: Path) -> list[str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != RECORD_FILE)
    return [file.relative_to(folder).as_posix() for file in files]


def _read(folder: Path) -> dict[str, dict[str, Any]] | None:
    """The record; None if it is missing or damaged."""
    try:
        known: dict[str, dict[str, Any]] = json.loads((folder / RECORD_FILE).read_bytes())
        complete = all({"size", "mtime_ns", "sha256"} <= entry.keys() for entry in known.values())
    except (FileNotFoundError, ValueError, AttributeError):
        return None
    return known if complete else None


def _write(folder: Path, entries: dict[str, dict[str, Any]]) -> None:
    with replacing(folder / RECORD_FILE) as partial:
        partial.write_text(json.dumps(entries, indent=2), encoding="utf-8")
        partial.chmod(_READABLE)


def _entry(file: Path, sha256: str) -> dict[str, Any]:
    return {"size": file.stat().st_size, "mtime_ns": _time(file), "sha256": sha256}


def _time(file: Path) -> int:
    return file.stat().st_mtime_ns
