"""Stores the model's outputs before a change, and checks whether they are the same after it, byte for byte.

    python benchmarks/golden_outputs.py --out before          # before the change
    python benchmarks/golden_outputs.py --compare before      # after it; exit code 1 if anything differs

``describe``, ``ask``, ``classify`` and ``timeline`` are called on every recording of ``examples`` and on clips of the
validation split, chosen evenly in the order of the manifest. Every kind of call has one JSON file. Recordings are
processed one by one and with a fixed number of threads, so that sums are always computed in the same order: on one
machine, with the same libraries, unchanged code gives the same bytes. Only the public interface is used, so that the
same script runs before and after a change.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pengi import Pengi, PengiError

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2
MAX_SHOWN = 10
"""Maximum number of differences that are printed for each kind of call."""
QUESTIONS = (
    "what can be heard?",
    "is anybody speaking?",
    "what is said?",
    "which instrument is playing?",
    "how many times does the sound occur?",
    "is there a siren?",
    "what is the mood of the recording?",
)
"""Each recording gets the next question."""
LABELS: tuple[tuple[str, ...], ...] = (
    ("dog barking", "siren", "church bells", "speech", "music", "rain"),
    ("a quiet room", "a busy street", "someone practising an instrument", "silence"),
    ("happy", "sad", "angry", "neutral"),
)
"""Lists of labels that name tags, and lists that do not; each recording gets the next list."""

CALLS = ("describe", "ask", "classify", "timeline")
Outputs = dict[str, dict[str, Any]]
"""Kind of call -> recording -> result of the call."""


def recordings(examples: Path, data: Path, clips: int) -> dict[str, Path]:
    """Name -> file of every recording of ``examples`` and of ``clips`` clips of the validation split."""
    found = {f"examples/{row['audio']}": examples / row["audio"] for row in rows_of(examples)}
    rows = [row for row in rows_of(data) if row["split"] == "val"]
    count = min(clips, len(rows))
    chosen = [rows[index * len(rows) // count] for index in range(count)]
    return found | {row["id"]: data / row["audio"] for row in chosen}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a folder's manifest."""
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def outputs(engine: Pengi, files: Mapping[str, Path]) -> Outputs:
    """The result of every kind of call for every recording."""
    found: Outputs = {kind: {} for kind in CALLS}
    for index, (name, path) in enumerate(files.items()):
        question, labels = QUESTIONS[index % len(QUESTIONS)], LABELS[index % len(LABELS)]
        calls: tuple[Callable[[], Any], ...] = (
            partial(engine.describe, path, explain=True),
            partial(engine.ask, path, question, explain=True),
            partial(engine.classify, path, labels, explain=True),
            partial(engine.timeline, path),
        )
        for kind, call in zip(CALLS, calls, strict=True):
            found[kind][name] = _result(call)
        print(f"\r{index + 1} of {len(files)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def _result(call: Callable[[], Any]) -> Any:
    try:
        return call().to_dict()
    except PengiError as error:
        return {"error": str(error)}


def text_of(answers: Mapping[str, Any]) -> str:
    """The content of a file of outputs."""
    return json.dumps(answers, indent=2, ensure_ascii=False) + "\n"


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """The differences of two JSON values, in the order of the first value and then of keys that only the second has."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from differences(before.get(key, "(absent)"), after.get(key, "(absent)"), f"{where} {key}".strip())
        if before.keys() == after.keys() and list(before) != list(after):
            yield f"{where}: the keys are in another order"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{where} [{index}]")
    elif (old := json.dumps(before, ensure_ascii=False)) != (new := json.dumps(after, ensure_ascii=False)):
        yield f"{where}:\n  before: {old}\n  after:  {new}"


def compare(folder: Path, found: Outputs) -> bool:
    """Print the first differences from the files of a folder; returns whether there are none."""
    same = True
    for kind, answers in found.items():
        before = (folder / f"{kind}.json").read_text(encoding="utf-8")
        if before == text_of(answers):
            print(f"{kind}: {len(answers)} recordings, identical")
            continue
        same = False
        differing = list(differences(json.loads(before), json.loads(text_of(answers))))
        print(f"{kind}: {len(differing)} differences; the first:")
        for line in differing[:MAX_SHOWN]:
            print(f"- {line}")
    return same


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder to write")
    parser.add_argument("--compare", type=Path, help="folder of an earlier run")
    parser.add_argument("--model", default="pengi-mini")
    parser.add_argument("--examples", type=Path, default=ROOT / "examples", help="folder of manifest.jsonl")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="folder of manifest.jsonl")
    parser.add_argument("--clips", type=int, default=100, help="clips of the validation split")
    options = parser.parse_args(arguments)
    if options.out is None and options.compare is None:
        parser.error("give --out, --compare or both")
    if options.compare is not None and not all((options.compare / f"{kind}.json").is_file() for kind in CALLS):
        parser.error(f"'{options.compare}' does not hold the files that --out writes")
    torch.set_num_threads(THREADS)
    files = recordings(options.examples, options.data, options.clips)
    found = outputs(Pengi.from_pretrained(options.model, device="cpu"), files)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        for kind, answers in found.items():
            (options.out / f"{kind}.json").write_text(text_of(answers), encoding="utf-8")
    return 0 if options.compare is None or compare(options.compare, found) else 1


if __name__ == "__main__":
    sys.exit(main())
