"""Progress on stderr, shown only for what takes longer than a second and only to a person at a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SHOW_AFTER_S = 1.0

T = TypeVar("T")
Advance = Callable[[int], None]
"""Called with how many more items are finished."""


def track(items: Sequence[T], what: str) -> Iterator[T]:
    """Yield the items; after a second a bar with count and remaining time appears on a terminal's stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    started = time.monotonic()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=len(items))
    shown = False
    try:
        for done, item in enumerate(items):
            if not shown and sys.stderr.isatty() and time.monotonic() - started > SHOW_AFTER_S:
                bar.start()
                shown = True
            bar.update(task, completed=done)
            yield item
    finally:
        if shown:
            bar.stop()
