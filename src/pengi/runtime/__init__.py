"""Decoding on a CPU without torch: a language model as graphs that onnxruntime runs."""

from pengi.runtime.decoder import OnnxLanguageModel
from pengi.runtime.graph import unsupported

__all__ = ["OnnxLanguageModel", "unsupported"]
