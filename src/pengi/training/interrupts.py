"""Ctrl-C during training: the first one stops the run after the current step, the second one at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

_NOTE = b"\nstopping as soon as a step is done and saved; press Ctrl-C again to stop at once\n"


class StopRequest:
    """Whether the user has asked the run to stop.

    Signals reach the main thread only; in another thread, and where interrupts are ignored, nothing is caught.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Self:
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if threading.current_thread() is threading.main_thread() and not ignored:
            self._before = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.__exit__()
        if sys.stderr is not None:
            os.write(2, _NOTE)  # the signal may interrupt print, which is not reentrant
