"""How long and how much memory the main job takes, on this machine, as a user meets it.

    python benchmarks/latency.py --out results/latency.json

Measures in processes of their own: from process start to the answer of ``pengi describe``; one description of a 10 s
clip once the model is loaded; a one-hour file through ``timeline``; peak resident memory of each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RATE = 16_000  # Hz
REPEATS = 5
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def ten_seconds() -> np.ndarray:
    """Two real example recordings, one behind the other, cut to 10 s."""
    from pengi.audio.decode import load

    return np.concatenate([load(EXAMPLES / "dog.opus", RATE), load(EXAMPLES / "rooster.opus", RATE)])[: 10 * RATE]


def write_hour(path: Path) -> None:
    """An hour of the example recordings, one behind the other, written block by block."""
    import soundfile

    from pengi.audio.decode import load

    clips = [load(clip, RATE) for clip in sorted(EXAMPLES.glob("*.opus"))]
    written = place = 0
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        while written < 3600 * RATE:
            file.write(clips[place % len(clips)])
            written += len(clips[place % len(clips)])
            place += 1


def peak_mb() -> float:
    """Peak resident memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_describe() -> dict[str, float]:
    from pengi import Pengi

    started = time.perf_counter()
    model = Pengi.from_pretrained()
    loaded = time.perf_counter()
    clip = ten_seconds()
    model.describe((clip, RATE))
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        model.describe((clip, RATE))
        seconds.append(time.perf_counter() - begun)
    return {"load_s": loaded - started, "describe_10s_clip_s": statistics.median(seconds), "peak_mb": peak_mb()}


def measure_timeline(path: Path) -> dict[str, float]:
    from pengi import Pengi

    model = Pengi.from_pretrained()
    before = peak_mb()
    begun = time.perf_counter()
    timeline = model.timeline(path)
    return {
        "audio_s": timeline.duration_s,
        "timeline_s": time.perf_counter() - begun,
        "peak_mb_loaded": before,
        "peak_mb": peak_mb(),
        "segments": len(timeline.segments),
    }


def measure_start() -> dict[str, float]:
    """From process start to the answer on stdout, through the command line."""
    command = [sys.executable, "-m", "pengi", "describe", str(EXAMPLES / "dog.opus"), "--json"]
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - begun)
    return {"process_start_to_answer_s": statistics.median(seconds)}


def in_process(what: str, argument: str = "") -> dict[str, float]:
    """Run one measurement in a fresh process, so that peaks of memory do not mix."""
    command = [sys.executable, __file__, "--measure", what, "--argument", argument]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", choices=("describe", "timeline"))
    parser.add_argument("--argument", default="")
    options = parser.parse_args()
    if options.measure:
        found = measure_describe() if options.measure == "describe" else measure_timeline(Path(options.argument))
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        hour = Path(folder) / "hour.wav"
        write_hour(hour)
        results = {
            "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
            "start": measure_start(),
            "describe": in_process("describe"),
            "timeline_1h": in_process("timeline", str(hour)),
        }
    text = json.dumps(results, indent=2) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
