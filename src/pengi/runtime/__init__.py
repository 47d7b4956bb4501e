"""Decoding in onnxruntime, for inference on a CPU; training, GPUs and other families of models use torch.

The language model is :class:`pengi.runtime.decoder.OnnxLanguageModel`. Importing only this package does not import
torch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, get_args

from pengi.errors import ConfigError
from pengi.runtime.architecture import unsupported

if TYPE_CHECKING:
    import torch

__all__ = ["DEFAULT_RUNTIME", "RUNTIME_ENV", "Runtime", "chosen_runtime", "unsupported"]

RUNTIME_ENV = "PENGI_RUNTIME"
Runtime = Literal["auto", "torch", "onnx"]
DEFAULT_RUNTIME: Runtime = "auto"


def chosen_runtime(name: str | None, device: torch.device) -> Runtime:
    """The runtime of the language model: the given name, else ``PENGI_RUNTIME``, else the default; torch on any device
    but the CPU.

    Raises:
        ConfigError: for an unknown name, and for "onnx" on another device than the CPU.
    """
    asked = name or os.environ.get(RUNTIME_ENV) or DEFAULT_RUNTIME
    for runtime in get_args(Runtime):
        if asked == runtime:
            if runtime == "onnx" and device.type != "cpu":
                raise ConfigError(f"onnxruntime runs the language model on the CPU only, not on '{device}'")
            return "torch" if device.type != "cpu" else runtime
    raise ConfigError(f"there is no runtime '{asked}'; choose {', '.join(get_args(Runtime))}")
