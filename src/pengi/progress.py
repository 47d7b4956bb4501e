"""Progress bars on stderr, shown only at a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

SHOW_AFTER_S = 1.0

T = TypeVar("T")
Advance = Callable[[int], None]
"""Called with how many more items are finished."""


def stderr() -> Console:
    """The console for everything except results."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def bar_on_stderr(*columns: ProgressColumn) -> Progress:
    """A bar with the description of its task in front; it never appears if stderr is not a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        *columns,
        console=stderr(),
        transient=True,
        redirect_stdout=False,  # results would go to the bar's stream, stderr
        disable=not (sys.stderr and sys.stderr.isatty()),
    )


def track(items: Sequence[T], what: str) -> Iterator[T]:
    """Yield the items; after a second a bar with count and remaining time appears."""
    bar = bar_on_stderr(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    task = bar.add_task(what, total=len(items))
    started = time.monotonic()
    try:
        for done, item in enumerate(items):
            if time.monotonic() - started > SHOW_AFTER_S:
                bar.start()
            bar.update(task, completed=done)
            yield item
    finally:
        bar.stop()


@contextmanager
def download_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes; the function takes the number of bytes so far, and that of all."""
    with bar_on_stderr(BarColumn(), DownloadColumn(), TransferSpeedColumn()) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
