"""Measures the F1 of timelines, on half an hour that is composed of val clips, so that the times are known.

    pip install sed_eval "setuptools<81"    # in an environment of its own; it needs the old pkg_resources
    python benchmarks/timeline.py --data ../shared/data --out runs/timeline

Val clips of one sound event each are put one after the other, with pauses of 0 to 8 s; every fourth clip begins before
the previous one has ended. An event lasts from the first to the last 50 ms of its clip that are less than 35 dB below
the loudest; two parts of a clip with a pause of more than 1 s between them are two events. Clips are normalised to -25
dBFS plus or minus 5 dB, and a noise floor of -65 dBFS is added.

The F1 is event-based, of sed_eval, with a collar of 0.5 s: an event is found if its label is right and it begins within
0.5 s of the true start ("onset"), and if it also ends within 0.5 s, or half of its length, of the true end ("onset and
offset"). Labels are those of the dataset. With ``--labels`` the timeline detects only these. Without, all tags are
detected, and events of tags that are not labels of the recording count as wrong; "known labels" ignores them.
``segment`` is the F1 of one-second segments.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from run_record import run_record

from pengi import Pengi
from pengi.audio.decode import load
from pengi.data.manifest import Clip, read_manifest
from pengi.plots import plot_timeline
from pengi.results import SILENCE, Segment, Timeline

RATE = 16_000
DOMAINS = ("animal", "environment", "human", "sfx")
FRAME, RANGE_DB, MAX_PAUSE_S = RATE // 20, 35.0, 1.0
LEVEL_DB, VARIATION_DB, FLOOR_DB = -25.0, 5.0, -65.0
MAX_GAP_S, OVERLAPPING, MAX_OF_LABEL = 8.0, 4, 4
COLLAR_S = 0.5
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="pengi-mini")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    samples_S, events = composed(args.data, args.minutes * 60, random.Random(args.seed))
    labels = sorted({event.text for event in events})
    print(f"{len(samples_S) / RATE / 60:.1f} minutes, {len(events)} events of {len(labels)} labels", flush=True)
    model = Pengi.from_pretrained(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    about: Row = {"events": len(events), "labels": len(labels), "minutes": args.minutes, "seed": args.seed}
    found: Row = {**run_record(), "model": args.model, **about}
    plot_timeline((samples_S, RATE), Timeline(tuple(events), len(samples_S) / RATE), args.out / "true.png", "true")
    started = time.monotonic()
    every = model.timeline((samples_S, RATE))
    found["seconds"] = round(time.monotonic() - started, 1)
    for name, timeline in (("without", every), ("with --labels", of_labels(model, every, labels, samples_S))):
        found[name] = measured(events, timeline.segments, labels)
        picture = args.out / f"{'all' if timeline is every else 'labels'}.png"
        plot_timeline((samples_S, RATE), timeline, picture, f"{args.model} {name}")
        print(name, json.dumps(found[name], indent=1), flush=True)
    (args.out / "timeline.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def of_labels(model: Pengi, every: Timeline, labels: Sequence[str], samples_S: NDArray[np.float32]) -> Timeline:
    """The timeline of some labels. If all of them are tags, its events are taken from the timeline of all tags."""
    assert model.model.tagger is not None
    vocabulary = model.model.tagger.vocabulary
    indices = vocabulary.label_indices(labels)
    if None in indices:
        return model.timeline((samples_S, RATE), labels=labels)
    names = {
        vocabulary.tags[index].text: label for index, label in zip(indices, labels, strict=True) if index is not None
    }
    kept = [replace(event, text=names[event.text]) for event in every.segments if event.text in names]
    return replace(every, segments=tuple(kept))


def composed(data: Path, seconds: float, rng: random.Random) -> tuple[NDArray[np.float32], list[Segment]]:
    """The recording, and its events in order of time."""
    clips = [
        clip
        for clip in read_manifest(data / "manifest.jsonl")
        if clip.split == "val" and len(clip.events) == 1 and clip.domain in DOMAINS
    ]
    rng.shuffle(clips)
    noise = np.random.default_rng(rng.randrange(2**32)).standard_normal(round(seconds * RATE))
    samples_S = (10 ** (FLOOR_DB / 20) * noise).astype(np.float32)
    events: list[Segment] = []
    end_s = 1.0
    for number, clip in enumerate(_spread(clips)):
        clip_S = _levelled(load(data / clip.audio, RATE), rng)
        overlap = number % OVERLAPPING == 1
        start_s = end_s - min(2.0, len(clip_S) / RATE / 2) if overlap else end_s + rng.uniform(0, MAX_GAP_S)
        start = round(start_s * RATE)
        if start + len(clip_S) > len(samples_S):
            break
        samples_S[start : start + len(clip_S)] += clip_S
        events += [Segment(start_s + on_s, start_s + off_s, clip.events[0], 1.0) for on_s, off_s in active(clip_S)]
        end_s = max(end_s, start_s + len(clip_S) / RATE)
    else:
        raise SystemExit("there are too few clips for so many minutes")
    return samples_S.clip(-1, 1), sorted(events, key=lambda event: event.start_s)


def _spread(clips: Sequence[Clip]) -> list[Clip]:
    """The clips in an order in which the labels take turns."""
    rounds: dict[int, list[Clip]] = {}
    counts: dict[str, int] = {}
    for clip in clips:
        counts[clip.events[0]] = counts.get(clip.events[0], -1) + 1
        rounds.setdefault(counts[clip.events[0]] // MAX_OF_LABEL, []).append(clip)
    return [clip for number in sorted(rounds) for clip in rounds[number]]


def _levelled(samples_S: NDArray[np.float32], rng: random.Random) -> NDArray[np.float32]:
    rms = max(float(np.sqrt(np.mean(samples_S**2))), 1e-5)
    level_db = LEVEL_DB + rng.uniform(-VARIATION_DB, VARIATION_DB)
    return (samples_S * 10 ** (level_db / 20) / rms).astype(np.float32)


def active(samples_S: NDArray[np.float32]) -> list[tuple[float, float]]:
    """Start and end in seconds of the parts of a clip that are not silent."""
    frames_FS = samples_S[: len(samples_S) // FRAME * FRAME].reshape(-1, FRAME)
    energy_F = (frames_FS**2).mean(1)
    loud = np.flatnonzero(energy_F >= energy_F.max(initial=0.0) * 10 ** (-RANGE_DB / 10))
    spans: list[list[float]] = []
    for frame in loud.tolist():
        start_s, end_s = frame * FRAME / RATE, (frame + 1) * FRAME / RATE
        if spans and start_s - spans[-1][1] <= MAX_PAUSE_S:
            spans[-1][1] = end_s
        else:
            spans.append([start_s, end_s])
    return [(start_s, end_s) for start_s, end_s in spans]


def measured(true: Sequence[Segment], found: Sequence[Segment], labels: Sequence[str]) -> Row:
    """Event-based and segment-based F1, precision and recall."""
    detected = [event for event in found if event.text != SILENCE]
    known = [event for event in detected if event.text in labels]
    rows: Row = {"events": len(detected), "of known labels": len(known)}
    for name, kept in (("all tags", detected), ("known labels", known)):
        for what, offset in (("onset", False), ("onset and offset", True)):
            rows[f"{name}, {what}"] = event_based(true, kept, offset=offset)
    rows["known labels, segment"] = segment_based(true, known)
    return rows


def _metadata(events: Sequence[Segment]) -> Any:
    from dcase_util.containers import MetaDataContainer

    rows = [
        {"filename": "a.wav", "event_label": each.text, "onset": each.start_s, "offset": each.end_s} for each in events
    ]
    return MetaDataContainer(rows)


def _overall(metrics: Any, true: Sequence[Segment], found: Sequence[Segment]) -> Row:
    metrics.evaluate(reference_event_list=_metadata(true), estimated_event_list=_metadata(found))
    scores = metrics.results_overall_metrics()["f_measure"]
    by_label = metrics.results_class_wise_average_metrics()["f_measure"]["f_measure"]
    return {name: round(float(value), 3) for name, value in scores.items()} | {"macro": round(float(by_label), 3)}


def event_based(true: Sequence[Segment], found: Sequence[Segment], *, offset: bool) -> Row:
    """sed_eval's event-based metrics with the collar."""
    import sed_eval

    labels = sorted({event.text for event in [*true, *found]})
    metrics = sed_eval.sound_event.EventBasedMetrics(
        labels, evaluate_onset=True, evaluate_offset=offset, t_collar=COLLAR_S, percentage_of_length=0.5
    )
    return _overall(metrics, true, found)


def segment_based(true: Sequence[Segment], found: Sequence[Segment]) -> Row:
    """sed_eval's metrics of one-second segments."""
    import sed_eval

    labels = sorted({event.text for event in [*true, *found]})
    return _overall(sed_eval.sound_event.SegmentBasedMetrics(labels, time_resolution=1.0), true, found)


if __name__ == "__main__":
    main()
