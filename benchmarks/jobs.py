"""Runs ``pengi run`` on real recordings, killed three times, and then on Ray; measures rows, speed and memory.

    python benchmarks/jobs.py --manifest ../shared/data/manifest.jsonl --count 2000 --out results/jobs.json

The process is killed by ``kill -9`` when a quarter, a half and three quarters of the rows are written. ``--names
1000000`` adds a list of that many names with a model that answers at once, which measures the memory and time of the
bookkeeping.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from run_record import run_record, write_results

SEED = 6
KILLS = 3
LOOK_S = 0.1


def chosen(manifest: Path, count: int, folder: Path) -> tuple[Path, float]:
    """A manifest of ``count`` clips drawn from another, with absolute paths, and their seconds."""
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").split("\n") if line]
    if len(rows) < count:
        raise SystemExit(f"{manifest} has {len(rows)} rows only")
    drawn = random.Random(SEED).sample(rows, count)
    for row in drawn:
        row["audio"] = str((manifest.parent / row["audio"]).resolve())
    path = folder / "clips.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in drawn), encoding="utf-8")
    return path, sum(row.get("duration_s") or 0.0 for row in drawn)


class Memory:
    """Peak resident memory of a process and all its descendants together, sampled ten times a second."""

    def __init__(self, process: int) -> None:
        self.peak_mb = 0.0
        self._process = process
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        while not self._done.wait(LOOK_S):
            try:
                root = psutil.Process(self._process)
                family = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            total = 0
            for member in family:
                try:
                    # Shared memory, such as Ray's object store, would be counted once for each process.
                    seen = member.memory_info()
                    total += seen.rss - getattr(seen, "shared", 0)
                except psutil.NoSuchProcess:
                    continue
            self.peak_mb = max(self.peak_mb, total / 2**20)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def run(arguments: list[str], out: Path, kill_at: int | None) -> dict[str, Any]:
    """Run one process to its end, or until ``kill_at`` rows are written."""
    command = [sys.executable, "-m", "pengi", "run", *arguments, "--out", str(out), "--json"]
    begun, before = time.perf_counter(), lines(out)
    first_row_s = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as job, Memory(job.pid) as memory:
        while job.poll() is None:
            written = lines(out)
            if first_row_s is None and written > before:
                first_row_s = time.perf_counter() - begun
            if kill_at is not None and written >= kill_at:
                os.kill(job.pid, signal.SIGKILL)
                break
            time.sleep(LOOK_S)
        job.wait()
    if kill_at is None and job.returncode not in (0, 2):
        raise SystemExit(f"pengi run ended with code {job.returncode}")
    return {
        "rows_before": before,
        "lines_after": lines(out),
        "seconds": round(time.perf_counter() - begun, 2),
        "first_row_s": None if first_row_s is None else round(first_row_s, 2),
        "peak_mb": round(memory.peak_mb),
        "killed": kill_at is not None,
    }


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n")[:-1]]


def counted(rows: list[dict[str, Any]]) -> dict[str, int]:
    times = Counter(row["input"] for row in rows)
    return {
        "rows": len(rows),
        "inputs": len(times),
        "listed_twice": sum(count > 1 for count in times.values()),
        "errors": sum(row["error"] is not None for row in rows),
    }


def speed(passes: list[dict[str, Any]], audio_s: float) -> dict[str, float]:
    """Speed over all passes, with and without the time before the first row of each (start, model, first batch)."""
    rows = passes[-1]["lines_after"]
    whole = sum(each["seconds"] for each in passes)
    steady = [each for each in passes if each["first_row_s"] is not None]
    behind = sum(each["lines_after"] - each["rows_before"] for each in steady)
    busy = sum(each["seconds"] - each["first_row_s"] for each in steady)
    return {
        "clips_per_s": round(rows / whole, 3),
        "clips_per_s_behind_the_first_batch": round(behind / max(busy, 1e-9), 3),
        "times_real_time": round(audio_s / whole, 2),
        "peak_mb": max(each["peak_mb"] for each in passes),
    }


def compared(local: list[dict[str, Any]], ray: list[dict[str, Any]]) -> dict[str, Any]:
    """How well the rows of two engines agree."""
    mine, other = ({row["input"]: row for row in rows} for rows in (local, ray))
    same = [name for name in mine if name in other and mine[name]["text"] == other[name]["text"]]
    apart = [
        abs(one["score"] - two["score"])
        for name in same
        for one, two in zip(mine[name]["scores"], other[name]["scores"], strict=False)
        if one["label"] == two["label"]
    ]
    return {
        "same_inputs": mine.keys() == other.keys(),
        "same_error": sum(mine[name]["error"] == other[name]["error"] for name in mine if name in other),
        "same_text": len(same),
        "of": len(mine),
        "largest_difference_of_a_score": max(apart, default=0.0),
        "first_different_texts": [
            [name, mine[name]["text"], other[name]["text"]] for name in mine if name in other and name not in same
        ][:5],
    }


def names_only(count: int, out: Path) -> dict[str, Any]:
    """Run a list of ``count`` names without audio or model: memory before the first row, at the end, and of a second
    run."""

    def child(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, __file__, "--child", str(count), *arguments]
        found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return found

    return {"names": count, "first_run": child(str(out)), "second_run": child(str(out))}


def names_child(count: int, out: Path) -> None:
    import numpy as np

    from pengi.jobs import pipeline, runner
    from pengi.jobs.inputs import Listing
    from pengi.jobs.tasks import Job
    from pengi.results import Description

    class Instant:
        sample_rate = 16_000

        def describe(self, audio: list[Any], **_: Any) -> list[Description]:
            return [Description("Nothing.", (), 0.1)] * len(audio)

    def listed() -> Iterator[bytes]:
        return (b"archive/%05d/recording-%09d.wav\n" % (index // 1000, index) for index in range(count))

    pipeline.stream = lambda *_, **__: iter([np.zeros(1600, np.float32)])  # type: ignore[attr-defined]
    runner.model_hash = lambda name_or_path: "0" * 64  # type: ignore[attr-defined]

    def peak_mb() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    before, begun = peak_mb(), time.perf_counter()
    counts = runner.run(
        Listing("-", stdin=listed()),  # type: ignore[arg-type]
        Job("describe"),
        out,
        runner.Execution("none", batch_size=64),
        load=lambda *_: Instant(),  # type: ignore[arg-type]
    )
    seconds = round(time.perf_counter() - begun, 1)
    print(json.dumps({"rows": counts.rows, "peak_mb_before": before, "peak_mb": peak_mb(), "seconds": seconds}))


def measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    clips, audio_s = chosen(options.manifest, options.count, folder)
    arguments = [str(clips), "--task", options.task, "--model", options.model, "--batch-size", str(options.batch)]
    local = folder / "local.jsonl"
    kills = [options.count * (index + 1) // (KILLS + 1) for index in range(KILLS)]
    passes = [run(arguments, local, kill_at) for kill_at in [*kills, None]]
    rows = rows_of(local)
    found = {"local": {**counted(rows), **speed(passes, audio_s), "kills": KILLS, "passes": passes}}
    if options.ray:
        out = folder / "ray.jsonl"
        on_ray = ["--engine", "ray", "--actors", str(options.actors), "--cpus-per-actor", "1"]
        once = run([*arguments, *on_ray], out, None)
        others = rows_of(out)
        found["ray"] = {**counted(others), **speed([once], audio_s), "actors": options.actors, "passes": [once]}
        found["compared"] = compared(rows, others)
    if options.names:
        found["names_only"] = names_only(options.names, folder / "names.jsonl")
    return {"clips": options.count, "audio_s": round(audio_s), "task": options.task, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--task", default="describe", choices=("describe", "events", "embed", "timeline"))
    parser.add_argument("--model", default="pengi-mini")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--names", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        names_child(int(options.child[0]), Path(options.child[1]))
        return
    if options.manifest is None:
        parser.error("--manifest is needed")
    with tempfile.TemporaryDirectory() as folder:
        found = measured(options, Path(folder))
    write_results({**run_record(), **found}, options.out)


if __name__ == "__main__":
    main()
