"""Benchmarks: the questions, the recordings, the metrics, and the numbers that others reported.

A benchmark has a version. Its definition includes everything that could change a number (prompt, labels, split, metric,
matcher), and any change of it needs a new version. Results of different versions are not compared.

Each reported number is marked as verified at its source or not. Numbers that are not verified are not shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pengi import templates
from pengi.data.datasets import DATASETS
from pengi.data.manifest import SPLITS
from pengi.data.tasks import CLOSED_TASKS
from pengi.errors import InputError, no_such

BenchmarkKind = Literal["classify", "tag", "question", "choice", "caption", "open"]
Agreement = Literal["all", "majority", "unanimous"]

ANSWER_MODES: dict[str, str] = {
    "likelihood": "log-likelihood of each label, mean over its tokens",
    "generate": "beam search that can only write labels (label trie)",
    "match": "beam search writes freely, the nearest label in a sentence encoder's space counts (the paper's way)",
    "exact": "beam search writes freely, the text must be a label",
    "write": "beam search writes freely; the text is compared with the reference texts",
}
"""Answer mode -> its description."""
DERIVED = {"exact": "match"}
"""Mode -> the mode whose predictions it scores in another way."""
LABEL_MODES = tuple(mode for mode in ANSWER_MODES if mode != "write")
DEFAULT_MODE = "likelihood"
TAGGER_MODE = "match"
"""The only mode of the stock tagger."""
YES_NO = (templates.YES, templates.NO)
MATCHER = "cosine in the model's own text encoder, or all-MiniLM-L6-v2 where it has none"


@dataclass(frozen=True)
class Reported:
    """A number that the paper or others reported; ``verified``: whether it was checked at its source."""

    metric: str
    value: float
    verified: bool
    by: Literal["paper", "others"] = "paper"
    note: str = ""


@dataclass(frozen=True)
class Benchmark:
    """One line of a results table.

    Attributes:
        dataset: an adapter's name, or "manifest" for the clips of a user's manifest.
        kind: with "open" the model answers in free text, and every answer that matches a pattern is right;
            :mod:`pengi.evaluation.building` makes these questions from the clips.
        field: field of the right answers: "events", "captions", "qa", or an attribute (``"a*"`` if it lists several).
        metrics: the first is the headline.
        labels: the choices; if empty, the labels that the split's recordings have.
        agreement: which answers count if several people answered a question.
        modes: the answer modes that are run by default, that of the headline first.
        tagger: whether the stock tagger's 521 classes cover these labels.
    """

    name: str
    version: int
    title: str
    dataset: str
    kind: BenchmarkKind
    field: str
    prompt: str
    metrics: tuple[str, ...]
    split: str = "test"
    source: str | None = None
    labels: tuple[str, ...] | None = None
    agreement: Agreement = "all"
    modes: tuple[str, ...] = (DEFAULT_MODE, "match")
    tagger: bool = False
    reported: tuple[Reported, ...] = ()
    note: str = ""

    @property
    def id(self) -> str:
        """Name and version, which together define what was measured."""
        return f"{self.name}@{self.version}"

    @property
    def license(self) -> str:
        """The licence of the recordings."""
        return "per clip, see the manifest" if self.dataset == "manifest" else DATASETS[self.dataset].license

    @property
    def how_to_get(self) -> str:
        """Where to get the data."""
        return "--manifest" if self.dataset == "manifest" else DATASETS[self.dataset].home

    def numbers(self, metric: str, by: str) -> tuple[Reported, ...]:
        """The reported numbers of a metric."""
        return tuple(number for number in self.reported if (number.metric, number.by) == (metric, by))


def _paper(metric: str, value: float, verified: bool = True, note: str = "") -> Reported:
    return Reported(metric, value, verified, "paper", note)


def _others(metric: str, value: float, note: str = "measured on the released weights") -> Reported:
    return Reported(metric, value, True, "others", note)


_EVENTS = templates.PROMPTS["events"][0]
_EMOTION, _SENTIMENT = templates.PROMPTS["emotion"][0], templates.PROMPTS["sentiment"][0]
_ACCURACY = ("accuracy", "macro_f1")
_MAP = ("map",)
_CAPTION_METRICS = (
    "spider", "cider_d", "spice", "meteor", "rouge_l", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "similarity",
    "t2a_r1", "t2a_r5", "t2a_r10", "t2a_map10", "t2a_median_rank",
    "a2t_r1", "a2t_r5", "a2t_r10", "a2t_map10", "a2t_median_rank",
)  # fmt: skip
_UNCLEAR = "the paper says GTZAN and not which collection"


def _classify(
    name: str,
    field: str,
    prompt: str,
    *reported: Reported,
    dataset: str = "",
    part: str = "",
    several: bool = False,
    tagger: bool = False,
    note: str = "",
) -> Benchmark:
    """A closed label set; with ``several`` a recording may have several labels, and the metric is mAP."""
    adapter = DATASETS[dataset or name]
    return Benchmark(
        name=name,
        version=1,
        title=f"{adapter.title}: {part}" if part else adapter.title,
        dataset=adapter.name,
        kind="tag" if several else "classify",
        field=field,
        prompt=prompt,
        metrics=_MAP if several else _ACCURACY,
        labels=adapter.labels or None,
        tagger=tagger,
        reported=reported,
        note=note,
    )


def _questions(name: str, title: str, agreement: Agreement, *reported: Reported, binary: bool = True) -> Benchmark:
    return Benchmark(
        name=name,
        version=1,
        title=title,
        dataset="clotho-aqa",
        kind="question",
        field="qa",
        prompt=templates.QUESTIONS[0],
        metrics=("accuracy",) if binary else ("accuracy", "similarity"),
        labels=YES_NO if binary else None,
        agreement=agreement,
        modes=(DEFAULT_MODE, "exact", "match") if binary else ("write",),
        reported=reported,
    )


def _captions(name: str, *reported: Reported) -> Benchmark:
    return Benchmark(
        name=name,
        version=1,
        title=DATASETS[name].title,
        dataset=name,
        kind="caption",
        field="captions",
        prompt=templates.PROMPTS["caption"][0],
        metrics=_CAPTION_METRICS,
        modes=("write",),
        reported=reported,
    )


def _public() -> Iterator[Benchmark]:
    """The benchmarks of the paper and of its successors on published datasets."""
    events, scene, note = _EVENTS, templates.PROMPTS["scene"][0], templates.PROMPTS["note"][0]
    accuracy = "accuracy"
    yield _classify("esc50", "events", events, _paper(accuracy, 0.9195), _others(accuracy, 0.808), tagger=True)
    yield _classify(
        "urbansound8k",
        "events",
        events,
        _paper(accuracy, 0.7185),
        _others(accuracy, 0.55, "about, with different scoring"),
        tagger=True,
    )
    yield _classify("fsd50k", "events", events, _paper("map", 0.4676), _others("map", 0.358), several=True, tagger=True)
    yield _classify(
        "audioset", "events", events, _paper("map", 0.1635), _others("map", 0.115), several=True, tagger=True
    )
    yield _classify(
        "dcase2017-task4",
        "events",
        events,
        _paper("unstated", 0.338, False),
        _others("unstated", 0.296, "of which metric is not known"),
        several=True,
        tagger=True,
    )
    yield _classify("tut2017", "events", scene, _paper(accuracy, 0.353), _others(accuracy, 0.184))
    yield _classify("cochlscene", "events", scene)
    yield _classify("sesa", "events", events, _paper(accuracy, 0.54, False), tagger=True)
    yield _classify(
        "gtzan", "genre", templates.PROMPTS["genre"][0], _paper(accuracy, 0.80, note=_UNCLEAR), _others(accuracy, 0.119)
    )
    yield _classify("gtzan-music-speech", "events", events, _paper(accuracy, 0.80, note=_UNCLEAR), tagger=True)
    yield from _nsynth(note)
    instrument = templates.PROMPTS["instrument"][0]
    yield _classify("beijing-opera", "instrument", instrument, _paper(accuracy, 0.623, False), _others(accuracy, 0.473))
    yield _classify("medley-solos-db", "instrument", instrument, tagger=True)
    yield _classify("vocalsound", "events", events, _paper(accuracy, 0.6035), _others(accuracy, 0.464), tagger=True)
    yield from _voices()
    yield from _language()


def _nsynth(note: str) -> Iterator[Benchmark]:
    yield _classify(
        "nsynth-family",
        "instrument",
        note,
        _paper("accuracy", 0.5007),
        _others("accuracy", 0.392, "whether of the family or the source is not stated"),
        dataset="nsynth",
        part="instrument family",
        note="the test split has 10 of the 11 families",
    )
    yield _classify("nsynth-source", "source", note, dataset="nsynth", part="source")
    yield _classify(
        "nsynth-qualities",
        "qualities*",
        note,
        _paper("map", 0.386),
        dataset="nsynth",
        part="qualities",
        several=True,
    )
    yield _classify("nsynth-pitch", "pitch", note, dataset="nsynth", part="pitch")
    yield _classify("nsynth-velocity", "velocity", templates.PROMPTS["velocity"][0], dataset="nsynth", part="velocity")


def _voices() -> Iterator[Benchmark]:
    yield _classify("crema-d", "emotion", _EMOTION, _paper("accuracy", 0.185))
    yield _classify("ravdess", "emotion", _EMOTION, _paper("accuracy", 0.203, False))
    yield _classify("meld", "emotion", _EMOTION)
    yield _classify("cmu-mosi", "sentiment", _SENTIMENT)
    yield _classify("cmu-mosei", "sentiment", _SENTIMENT)
    yield _classify("msp-podcast", "emotion", _EMOTION)
    yield _classify("speech-commands", "keyword", templates.PROMPTS["keyword"][0])
    yield _classify("librispeech-gender", "gender", templates.PROMPTS["gender"][0])


def _language() -> Iterator[Benchmark]:
    yield _captions(
        "audiocaps",
        _paper("meteor", 0.232),
        _paper("rouge_l", 0.482),
        _paper("cider_d", 0.752),
        _paper("spice", 0.182),
        _paper("spider", 0.467),
        _others("spider", 0.256),
    )
    yield _captions(
        "clotho",
        _paper("cider_d", 0.416),
        _paper("spice", 0.126),
        _paper("spider", 0.271),
        _paper("t2a_r1", 0.094),
        _paper("t2a_r5", 0.261, False),
        _paper("t2a_r10", 0.367, False),
        _others("spider", 0.260),
        _others("fense", 0.488),
    )
    yield _questions(
        "clotho-aqa-binary",
        "ClothoAQA, yes or no, all answers",
        "all",
        _paper("accuracy", 0.645, note="the binary column; which answers count is not stated"),
        _others("accuracy", 0.636, "the binary column; which answers count is not stated"),
    )
    yield _questions("clotho-aqa-majority", "ClothoAQA, yes or no, majority of the answers", "majority")
    yield _questions("clotho-aqa-unanimous", "ClothoAQA, yes or no, unanimous answers", "unanimous")
    yield _questions("clotho-aqa-words", "ClothoAQA, other than yes or no", "all", binary=False)
    yield Benchmark(
        name="mmau",
        version=1,
        title=DATASETS["mmau"].title,
        dataset="mmau",
        kind="choice",
        field="qa",
        prompt=templates.QUESTIONS[0],
        metrics=("accuracy",),
    )


def task_benchmark(
    task: str, *, split: str, source: str | None = None, labels: Sequence[str] | None = None
) -> Benchmark:
    """One task on a user's clips. It is not published, so its version is 0.

    Args:
        task: one of :data:`pengi.data.tasks.CLOSED_TASKS`.
        split: whose clips are asked about.
        source: only clips of this source.
        labels: the choices; if None, the labels that the clips have.

    Raises:
        InputError: for an unknown task or split; the nearest one is named.
    """
    if task not in CLOSED_TASKS:
        raise InputError(no_such("task", task, CLOSED_TASKS))
    if split not in SPLITS:
        raise InputError(no_such("split", split, SPLITS))
    return Benchmark(
        name=task,
        version=0,
        title=f"{task}, {split}" + (f" of {source}" if source else ""),
        dataset="manifest",
        kind="classify",
        field=task,
        prompt=templates.PROMPTS[task][0],
        metrics=_ACCURACY,
        split=split,
        source=source,
        labels=None if labels is None else tuple(labels),
    )


def _own(name: str, task: str, title: str, source: str | None, *modes: str, tagger: bool = False) -> Benchmark:
    """A closed-set task on the validation split of the user's manifest."""
    benchmark = task_benchmark(task, split="val", source=source)
    return replace(benchmark, name=name, version=1, title=title, modes=modes or (DEFAULT_MODE,), tagger=tagger)


def _open(name: str, title: str, note: str = "") -> Benchmark:
    """Questions that are made from the user's manifest and answered in free text."""
    return Benchmark(
        name=name,
        version=1,
        title=title,
        dataset="manifest",
        kind="open",
        field="qa",
        prompt=templates.QUESTIONS[0],
        metrics=("accuracy",),
        split="val",
        modes=("write",),
        note=note,
    )


def _local() -> Iterator[Benchmark]:
    """Benchmarks on the labelled recordings that come with the project."""
    yield _own("val-esc50", "events", "ESC-50 fold 4, free clips", "esc50-fold4", *LABEL_MODES, tagger=True)
    yield _own("val-digits", "digit", "Spoken digits, unheard speaker", "fsdd")
    yield _own("val-keywords", "keyword", "Speech Commands words, unheard speakers", "speech-commands")
    yield _own("val-wake-words", "keyword", "Wake words", "wake-words")
    yield _own("val-gender", "gender", "Speaker's gender", "librispeech")
    yield _own("val-language", "language", "Spoken language, unheard voices", "ktuberling")
    yield _own("val-philharmonia", "instrument", "Orchestral instruments, unheard pitches", "philharmonia", tagger=True)
    yield _own("val-keyboardia", "instrument", "Instruments of another sample library", "keyboardia", tagger=True)
    yield _own("val-genre", "genre", "Genre of unheard tracks", None, tagger=True)
    yield _own("val-emotion", "emotion", "Acted emotion, unheard actors", "ravdess")
    yield Benchmark(
        name="val-orders",
        version=1,
        title="Questions about spoken coffee orders",
        dataset="manifest",
        kind="question",
        field="qa",
        prompt=templates.QUESTIONS[0],
        metrics=("accuracy", "similarity"),
        split="val",
        source="speech-to-intent",
        modes=("write",),
    )
    yield _open("val-open", "Open questions", "right is what matches a pattern of right answers")
    yield _open("val-composed", "Questions about composed recordings", "300 compositions, two questions about each")
    yield _open("val-notes", "Name and octave of a note, orchestral instruments")


BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in (*_public(), *_local())}


@dataclass(frozen=True)
class Suite:
    """Benchmarks that are run together; ``limit`` and ``modes`` override those of the benchmarks."""

    benchmarks: tuple[Benchmark, ...]
    limit: int | None = None
    modes: tuple[str, ...] = ()


_QUICK = ("val-esc50", "val-digits", "val-gender", "val-orders")
SUITES: dict[str, Suite] = {
    "paper": Suite(tuple(_public())),
    "local": Suite(tuple(_local())),
    "quick": Suite(tuple(BENCHMARKS[name] for name in _QUICK), limit=12, modes=("likelihood", "match", "write")),
}


def benchmark_named(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        InputError: for an unknown name; the nearest one is named.
    """
    if name not in BENCHMARKS:
        raise InputError(no_such("benchmark", name, BENCHMARKS))
    return BENCHMARKS[name]
