"""How fast a model is on this machine: the figures of ``pengi bench``.

All times are wall-clock times, and medians if a measurement is short enough to be repeated. The recordings are the
examples in the package.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from numpy.typing import NDArray

from pengi.audio.decode import load
from pengi.audio.sources import Waveform
from pengi.errors import PengiError
from pengi.results import Result

if TYPE_CHECKING:
    from pengi.engine import Pengi

EXAMPLES = Path(__file__).parent / "assets" / "page" / "examples"
CLIP_S = 10.0
BATCH = 16
TIMELINE_S = 300.0
REPEATS = 5
STARTS = 3


@dataclass(frozen=True)
class Figure:
    """One measurement."""

    name: str
    value: float
    unit: str
    """"s" (lower is better), "x" (times real time, higher is better) or "MB"."""
    meaning: str


@dataclass(frozen=True)
class Machine:
    """The machine on which the figures were measured."""

    processor: str
    cores: int
    threads: int
    device: str
    runtime: str
    """What runs the language model."""
    python: str
    torch: str


@dataclass(frozen=True)
class Timing(Result):
    """All figures of one model."""

    model: str
    machine: Machine
    figures: tuple[Figure, ...]


def measure(model: str, device: str = "auto", *, quick: bool = False) -> Timing:
    """Measure a model on this machine.

    Args:
        model: name of a model, or its folder.
        device: where it runs.
        quick: measure everything once, with short recordings.

    Raises:
        PengiError: if the model cannot be loaded.
    """
    from pengi.checkpoint import model_folder

    model_folder(model)  # a wrong name is an error before any process is started
    started = list(_of_a_start(model, device, 1 if quick else STARTS))
    from pengi.engine import Pengi

    begun = time.perf_counter()
    engine = Pengi.from_pretrained(model, device=device)
    loaded = Figure("load", time.perf_counter() - begun, "s", "loading the model in a process that has imported it")
    answered = list(_of_clips(engine, 1 if quick else REPEATS, 2 if quick else BATCH))
    timeline = _of_a_timeline(engine, CLIP_S if quick else TIMELINE_S)
    return Timing(model, _machine(engine), (*started, loaded, *answered, timeline))


def _of_a_start(model: str, device: str, repeats: int) -> Iterator[Figure]:
    """The time from the start of a process to its answer, and its peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.wav"
        (sound,) = clips(1)
        soundfile.write(clip, sound.samples, sound.sample_rate)
        command = [sys.executable, "-m", "pengi", "describe", str(clip), "--json", "--model", model, "--device", device]
        seconds = [_seconds(lambda: _run(command)) for _ in range(repeats)]
    yield Figure("start", statistics.median(seconds), "s", "from starting `pengi describe` to its answer about 10 s")
    peak_mb = _peak_of_children_mb()
    if peak_mb:
        yield Figure("memory", peak_mb, "MB", "most memory that `pengi describe` takes")


def _of_clips(engine: Pengi, repeats: int, batch: int) -> Iterator[Figure]:
    """The methods of the engine on recordings of 10 s, one at a time and in batches."""
    one, many = clips(1), clips(batch)
    audio_s = CLIP_S * batch
    yield Figure("describe", _median(lambda: engine.describe(one), repeats), "s", "describing one recording of 10 s")
    yield Figure("ask", _median(lambda: engine.ask(one, "what is it?"), repeats), "s", "a question about one of 10 s")
    meaning = f"describing {batch} recordings of 10 s together, times real time"
    yield Figure("describe batch", audio_s / _median(lambda: engine.describe(many), repeats), "x", meaning)
    if engine.has_tagger:
        meaning = f"detecting tags in {batch} recordings of 10 s together, times real time"
        yield Figure("tags", _median(lambda: engine.tags(one), repeats), "s", "detecting tags in one recording of 10 s")
        yield Figure("tags batch", audio_s / _median(lambda: engine.tags(many), repeats), "x", meaning)


def _of_a_timeline(engine: Pengi, seconds: float) -> Figure:
    samples_S = np.concatenate([clip.samples for clip in clips(round(seconds / CLIP_S))])
    spent_s = _seconds(lambda: engine.timeline(Waveform(samples_S, engine.sample_rate)))
    return Figure("timeline", seconds / spent_s, "x", f"a timeline of {seconds / 60:.0f} minutes, times real time")


def clips(count: int) -> list[Waveform]:
    """Different recordings of 10 s each, cut from the concatenated examples."""
    rate = 16_000
    examples_S = np.concatenate([load(path, rate) for path in sorted(EXAMPLES.glob("*.opus"))])
    length, step = round(CLIP_S * rate), round(0.7 * rate)
    stream_S: NDArray[np.float32] = np.resize(examples_S, length + step * (count - 1))
    return [Waveform(stream_S[step * index : step * index + length], rate) for index in range(count)]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PengiError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _median(work: Callable[[], object], repeats: int) -> float:
    """Median time of a piece of work in seconds; the first run is not counted."""
    return statistics.median([_seconds(work) for _ in range(1 + repeats)][1:])


def _peak_of_children_mb() -> float | None:
    """The peak resident memory of the processes that this one has started; None if the system does not report it."""
    try:
        import resource
    except ImportError:  # on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _machine(engine: Pengi) -> Machine:
    import torch

    from pengi.runtime.decoder import OnnxLanguageModel

    is_onnx = isinstance(engine.model.language_model, OnnxLanguageModel)
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        device=str(engine.device),
        runtime="onnxruntime" if is_onnx else "torch",
        python=platform.python_version(),
        torch=str(torch.__version__),
    )


def _processor() -> str:
    """The name of the processor, if the system reports it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
