"""Skips unusable rows, up to a share of all rows."""

from __future__ import annotations

import logging

from pengi.errors import ManifestError

log = logging.getLogger(__name__)

MAX_BAD_SHARE = 0.01
"""Share of a corpus that may be unusable; a larger share suggests a mistake in the data."""


class Tolerance:
    """Counts what is skipped.

    Args:
        max_share: the share of all rows that may be bad, 0 to 1.
    """

    def __init__(self, max_share: float = MAX_BAD_SHARE) -> None:
        self.max_share = max_share
        self.skipped: list[str] = []
        """Names of the skipped rows, in order."""

    def skip(self, name: str, error: Exception) -> None:
        """Log and count a row."""
        log.warning("skipped %s: %s", name, error)
        self.skipped.append(name)

    def check(self, total: int, what: str) -> None:
        """Raise a :class:`ManifestError` if too large a share of the ``total`` rows was skipped."""
        if len(self.skipped) > self.max_share * total:
            advice = f"; data.max_bad_share of a recipe allows {self.max_share:.1%}" if self.max_share else ""
            raise ManifestError(
                f"{len(self.skipped)} of {total} {what} cannot be read; the first is '{self.skipped[0]}'{advice}"
            )
