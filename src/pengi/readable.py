"""Times and shares as people read them, on the command line and on the page."""

from __future__ import annotations

import math


def clock(seconds: float, *, tenths: bool = True) -> str:
    """A time as mm:ss, with tenths of a second unless ``tenths`` is false, and hours if there are any."""
    total_tenths = math.floor(seconds * 10 + 0.5)
    minutes, rest = divmod(total_tenths, 600)
    hours, minutes = divmod(minutes, 60)
    second = f"{rest / 10:04.1f}" if tenths else f"{rest // 10:02d}"
    return f"{hours:d}:{minutes:02d}:{second}" if hours else f"{minutes:02d}:{second}"


def percent(share: float, *, digits: int = 0) -> str:
    """A share in [0, 1] as a percentage; values that would be rounded to 0 % are "<1%", or "<0.1%" with one digit."""
    smallest = 10.0 ** -(digits + 2)
    return f"<{smallest:.{digits}%}" if 0 < share < smallest / 2 else f"{share:.{digits}%}"
