"""Reads the published format, ``torch.save({"model": state_dict})``, without executing anything in it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pengi.errors import CheckpointError, reason

WRAPPER_PREFIX = "module."
"""Prefix of every name if a model was saved inside torch's data-parallel wrapper."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a published checkpoint by name, memory-mapped from the file.

    Raises:
        CheckpointError: for any other file; the message gives the reason.
    """
    _check_archive(path)
    content = _load(path)
    state = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"'{path}' is not a published Pengi checkpoint: it has no state dict under the key 'model'"
        )
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        name = str(key).removeprefix(WRAPPER_PREFIX)
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
            raise CheckpointError(f"'{path}': the entry '{key}' is not a plain tensor")
        if name in tensors:
            raise CheckpointError(f"'{path}' holds '{name}' twice, with and without '{WRAPPER_PREFIX}'")
        tensors[name] = value
    return tensors


def _check_archive(path: Path) -> None:
    """Check that a file is a zip archive as ``torch.save`` writes it: complete, uncompressed, each byte stored once."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint file at '{path}'")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if not any(entry.filename.endswith("/data.pkl") for entry in entries):
                raise CheckpointError(f"'{path}' is a zip archive, but not one that torch.save wrote")
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise CheckpointError(f"'{path}' unpacks to more than it is, which torch.save never writes")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(
            f"'{path}' is not a PyTorch checkpoint, or only a part of one (torch.save writes a zip archive)"
        ) from error
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {reason(error)}") from error
    if damaged is not None:
        raise CheckpointError(f"'{path}' is damaged: its entry '{damaged}' does not have the recorded checksum")


def _load(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # A broken pickle can raise any error.
    except Exception as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found:
            raise CheckpointError(
                f"'{path}' holds Python objects ({found[1]}) beside tensors; they could run code, so it is refused"
            ) from error
        raise CheckpointError(f"'{path}' is a damaged or foreign checkpoint that cannot be read") from error
