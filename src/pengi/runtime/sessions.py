"""Sessions of onnxruntime.

Opening those of a language model takes a second, during which Python is free. The command line opens them while it
imports torch, which takes two seconds. So this module must not import torch.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from pengi.errors import WeightsError
from pengi.runtime.architecture import HEAD_FILE, PREFILL_FILE, STEP_FILE
from pengi.runtime.store import newest

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_CORES = Path("/sys/devices/system/cpu")
_ahead: dict[Path, Future[InferenceSession]] = {}


def open_ahead() -> None:
    """Open, in the background, the sessions that a search needs, for the model whose graphs were used last.

    :func:`opened` returns them. If another model is asked for, they are dropped.
    """
    import onnxruntime  # noqa: F401 - not in the other thread: two threads should not import the same modules at once

    graphs = newest()
    if graphs is None:
        return
    threads = torch_threads()
    pool = ThreadPoolExecutor(max_workers=1)
    for file in (PREFILL_FILE, STEP_FILE, HEAD_FILE):
        _ahead[graphs / file] = pool.submit(_open, graphs / file, threads)
    pool.shutdown(wait=False)


def opened(file: Path, threads: int) -> InferenceSession:
    """The session of a graph, opened now if it was not opened ahead.

    Args:
        file: with the graph.
        threads: number of threads of a session that is opened now.

    Raises:
        WeightsError: if onnxruntime cannot load the file.
    """
    for other in [other for other in _ahead if other.parent != file.parent]:
        _ahead.pop(other).cancel()
    ahead = _ahead.pop(file, None)
    return _open(file, threads) if ahead is None else ahead.result()


def torch_threads() -> int:
    """The number of threads that torch will use: ``OMP_NUM_THREADS``, else one for each physical core if known."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    processors = os.sched_getaffinity(0)
    siblings = [_CORES / f"cpu{number}" / "topology" / "thread_siblings_list" for number in processors]
    if not all(file.is_file() for file in siblings):
        return len(processors)
    return len({file.read_text() for file in siblings})


def _open(file: Path, threads: int) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False  # it would keep freed memory for itself
    options.log_severity_level = 3
    # Threads spin during a run, which makes a step faster, but not after it, when torch needs the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime has an exception class of its own for each kind of failure, without a public base.
        raise WeightsError(f"onnxruntime cannot load '{file}': {error}; set PENGI_RUNTIME=torch") from error
