"""Makes the questions of a benchmark from a manifest."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pengi.data.manifest import Clip, read_manifest
from pengi.data.tasks import answers_of
from pengi.errors import InputError
from pengi.evaluation.benchmarks import YES_NO, Benchmark

# A limited run takes a fixed random sample: the first rows of a manifest are often from a single source.
_LIMIT_SEED = 0
_MAX_NAMES = 8


@dataclass(frozen=True)
class Item:
    """One question about one recording.

    Attributes:
        id: the clip's id, followed by the number of the question if the clip has several.
        audio: path relative to the manifest's folder.
        answers: the right answers; for questions that several people answered, all of their answers.
        labels: the choices; empty if the answer is free text.
        group: the same for items of one recording, speaker or track, which are resampled together.
        credit: licence and origin of the recording.
        redistribute: whether the recording may be included in a report.
        accepted: patterns of right answers, see :mod:`pengi.evaluation.patterns`; if there are any, ``answers`` are
            examples.
        family: kind of question; each family is reported separately.
        is_question: whether the prompt is a plain question, which the engine puts into the model's prompt format.
    """

    id: str
    audio: str
    prompt: str
    answers: tuple[str, ...]
    labels: tuple[str, ...]
    group: str
    credit: str
    redistribute: bool
    accepted: tuple[str, ...] = ()
    family: str = ""
    is_question: bool = False

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Item:
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        return cls(**values)


def items_of(benchmark: Benchmark, manifest: Path, limit: int | None = None) -> list[Item]:
    """All items of a benchmark, in the manifest's order, or a fixed random sample of them.

    Labels are those of the benchmark, or all that its recordings have. They are collected before ``limit`` is applied,
    so a limited run has the same choices as the full one. Clips that have none of the benchmark's labels are left out.

    Raises:
        InputError: if the manifest has nothing for the benchmark; the message says what it has.
        ManifestError: as :func:`pengi.data.manifest.read_manifest`.
    """
    every = read_manifest(manifest, check_audio=False)
    clips = _clips_of(benchmark, every)
    if benchmark.kind in ("classify", "tag") and not benchmark.labels:
        benchmark = replace(benchmark, labels=_labels_of(benchmark, clips))
    make = {"caption": _captions, "question": _questions, "choice": _choices, "open": _open}.get(
        benchmark.kind, _labelled
    )
    items = [item for clip in clips for item in make(benchmark, clip)]
    if not items:
        raise InputError(f"'{manifest}' has nothing for {benchmark.name}: {_nothing_found(benchmark, every)}")
    if limit is None or limit >= len(items):
        return items
    return [items[index] for index in sorted(random.Random(_LIMIT_SEED).sample(range(len(items)), limit))]


def left_out(benchmark: Benchmark, manifest: Path) -> int:
    """Number of clips whose answers are not among the labels of the benchmark."""
    answers = [
        answers_of(clip, benchmark.field) for clip in _clips_of(benchmark, read_manifest(manifest, check_audio=False))
    ]
    return sum(bool(given) and not set(given) & set(benchmark.labels or given) for given in answers)


def shard_of(items: Sequence[Item], shard: tuple[int, int]) -> list[Item]:
    """Part ``i`` of ``n`` (counted from 1): every n-th item, so that all parts take about equally long."""
    part, parts = shard
    return list(items[part - 1 :: parts])


def _clips_of(benchmark: Benchmark, clips: Sequence[Clip]) -> list[Clip]:
    return [clip for clip in clips if clip.split == benchmark.split and benchmark.source in (None, clip.source)]


def _labels_of(benchmark: Benchmark, clips: Sequence[Clip]) -> tuple[str, ...]:
    return tuple(sorted({label for clip in clips for label in answers_of(clip, benchmark.field)}))


def _nothing_found(benchmark: Benchmark, clips: Sequence[Clip]) -> str:
    """The error message: what was looked for, and where the manifest has it."""
    source = f" of source '{benchmark.source}'" if benchmark.source else ""
    missing = f"no clip of split '{benchmark.split}'{source} has"
    present = _labels_of(benchmark, _clips_of(benchmark, clips))
    if present:
        return f"{missing} one of the given labels; its labels are {_some(present)}"
    sources = sorted({(clip.split, clip.source) for clip in clips if answers_of(clip, benchmark.field)})
    where = f"; it is in {_some([f'{split} ({source})' for split, source in sources])}" if sources else ""
    return f"{missing} {benchmark.field.rstrip('*')}{where}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")


def _item(
    benchmark: Benchmark,
    clip: Clip,
    answers: Sequence[str],
    labels: Sequence[str] = (),
    number: int | None = None,
    question: str | None = None,
) -> Item:
    return Item(
        id=clip.id if number is None else f"{clip.id}#{number}",
        audio=clip.audio,
        prompt=benchmark.prompt if question is None else question,
        answers=tuple(answers),
        labels=tuple(labels),
        group=clip.group or clip.id,
        credit=", ".join(part for part in (clip.license, clip.origin) if part),
        redistribute=clip.redistribute,
        is_question=question is not None,
    )


def _labelled(benchmark: Benchmark, clip: Clip) -> Iterator[Item]:
    labels = benchmark.labels or ()
    answers = [answer for answer in answers_of(clip, benchmark.field) if answer in labels]
    if answers:
        yield _item(benchmark, clip, answers, labels)


def _captions(benchmark: Benchmark, clip: Clip) -> Iterator[Item]:
    if clip.captions:
        yield _item(benchmark, clip, clip.captions)


def _questions(benchmark: Benchmark, clip: Clip) -> Iterator[Item]:
    binary = benchmark.labels == YES_NO
    answers_to: dict[str, list[str]] = {}
    for pair in clip.qa:
        answers_to.setdefault(pair.question, []).append(pair.answer.strip())
    for number, (question, answers) in enumerate(answers_to.items(), start=1):
        given = [answer.lower() for answer in answers] if binary else answers
        if benchmark.dataset == "clotho-aqa" and all(answer.lower() in YES_NO for answer in answers) != binary:
            continue
        counting = agreed(given, benchmark.agreement)
        if counting:
            yield _item(benchmark, clip, counting, benchmark.labels or (), number, question)


def _open(benchmark: Benchmark, clip: Clip) -> Iterator[Item]:
    for number, pair in enumerate(clip.qa, start=1):
        item = _item(benchmark, clip, (pair.answer,), (), number, pair.question)
        yield replace(item, accepted=pair.accepted, family=pair.kind)


def _choices(benchmark: Benchmark, clip: Clip) -> Iterator[Item]:
    choices = tuple(dict.fromkeys(clip.choices))
    if clip.qa and len(choices) > 1:
        question = f"{clip.qa[0].question} {', '.join(choices[:-1])} or {choices[-1]}?"
        yield _item(benchmark, clip, (clip.qa[0].answer,), choices, question=question)


def agreed(answers: Sequence[str], agreement: str) -> tuple[str, ...]:
    """The answers that count: all, the most frequent one (of several the first), or a unanimous one (else none)."""
    if agreement == "unanimous":
        return (answers[0],) if len(set(answers)) == 1 else ()
    if agreement == "majority":
        return (Counter(answers).most_common(1)[0][0],)
    return tuple(answers)
