"""Imports the checkpoints that the paper's authors published, and reproduces the behaviour of their code.

``architectures`` has the two configurations, ``files`` reads the published format, ``keys`` maps its entries,
``importer`` checks them and writes our checkpoint. ``quirks`` and ``search`` have the differences of the official
wrapper, and ``wrapper`` has the engine with these differences. No other part of the package depends on this one.
"""

from __future__ import annotations

from pengi.official.architectures import ARCHITECTURES, Architecture, parameter_counts
from pengi.official.importer import import_official
from pengi.official.quirks import ReferenceQuirks
from pengi.official.search import ReferenceOptions
from pengi.official.wrapper import OfficialPengi

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "OfficialPengi",
    "ReferenceOptions",
    "ReferenceQuirks",
    "import_official",
    "parameter_counts",
]
