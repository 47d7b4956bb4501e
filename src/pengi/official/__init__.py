"""The authors' published models and code: everything of theirs that this package can read or follow.

``architectures`` holds the two configurations, ``files`` reads the published format, ``keys`` explains every entry of
it, ``importer`` checks them and writes our checkpoint. ``quirks`` and ``search`` hold what their wrapper does
differently, ``wrapper`` is the engine that follows it. Nothing else in the package knows of it.
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
