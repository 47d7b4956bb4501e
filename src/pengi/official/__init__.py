"""The authors' published models and code: reads their checkpoints and reproduces their wrapper.

``architectures`` has the two configurations, ``files`` reads the published format, ``keys`` maps its entries,
``importer`` checks them and writes our checkpoint. ``quirks`` and ``search`` have the differences of their wrapper, and
``wrapper`` is the engine that follows it. No other part of the package depends on this one.
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
