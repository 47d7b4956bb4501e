"""Ask a recording questions in plain words.

    from pengi import Pengi

    model = Pengi.from_pretrained("pengi-mini")
    print(model.describe("rain.wav").text)

Names are loaded when they are first used: ``import pengi`` alone imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pengi.errors import PengiError

if TYPE_CHECKING:
    from pengi.decoding import DecodeOptions
    from pengi.engine import Pengi

    __version__: str

__all__ = ["DecodeOptions", "Pengi", "PengiError", "__version__"]


def __getattr__(name: str) -> object:  # PEP 562
    if name == "Pengi":
        from pengi.engine import Pengi

        return Pengi
    if name == "DecodeOptions":
        from pengi.decoding import DecodeOptions

        return DecodeOptions
    if name == "__version__":
        from importlib.metadata import version

        return version("pengi")
    raise AttributeError(f"module 'pengi' has no attribute '{name}'")
