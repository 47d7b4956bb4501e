"""Training batches as a function of (seed, step), so that a resumed run sees exactly the data it would have seen.

Shape suffixes: A clips, T tokens.
"""

from __future__ import annotations

import math
import random
import signal
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from pengi.conditioning.evidence import Evidence, evidence_text, queried_prompt
from pengi.conditioning.vocabulary import Vocabulary
from pengi.config import EvidenceConfig
from pengi.data.features import FeatureCache
from pengi.data.manifest import Clip
from pengi.data.questions import QuestionMaker
from pengi.data.tagging import group_weights
from pengi.data.tasks import Pair
from pengi.errors import ConfigError
from pengi.model import Batch

# Number of batches that are drawn together and sorted by length, which saves padding.
BATCHES_DRAWN_TOGETHER = 8
PREFETCHED = 4  # batches that each worker process draws ahead


@dataclass(frozen=True)
class TrainingBatch:
    """A batch for the model, the clip of each of its rows, and the pair of each of its examples."""

    batch: Batch
    clips: tuple[Clip, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class ClipEvidence:
    """Evidence about training clips, for a model that reads it.

    Attributes:
        by_clip: clip id -> what is measured in the clip.
        vocabulary: the tags that prompts may name.
        config: which parts of the evidence are written.
    """

    by_clip: Mapping[str, Evidence]
    vocabulary: Vocabulary
    config: EvidenceConfig

    def text(self, clip_id: str) -> str:
        """The evidence about a clip as text."""
        return evidence_text(self.by_clip[clip_id], self.config)

    def prompt(self, clip_id: str, prompt: str) -> str:
        """A prompt about a clip as the language model reads it."""
        return queried_prompt(self.by_clip[clip_id], self.vocabulary, prompt)


def clip_weights(clips: Sequence[Clip], corpora: Mapping[str, float] | None = None) -> list[float]:
    """Sampling weight of each clip: the share of its corpus, times 1/sqrt(number of clips with the same answers).

    Clips of a large group (voice, recording, track) count less, see :func:`pengi.data.tagging.group_weights`.

    Raises:
        ConfigError: for a corpus without clips, a negative share, or if all shares are zero.
    """

    def kind(clip: Clip) -> tuple[str, ...]:
        attributes = clip.attributes
        special = [
            str(attributes[name])
            for name in ("keyword", "digit", "language", "instrument", "gender")
            if name in attributes
        ]
        return (clip.domain, *clip.events, *special, *(pair.answer for pair in clip.qa))

    of_groups = group_weights(clips).tolist()
    counts: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for clip, weight in zip(clips, of_groups, strict=True):
        counts[kind(clip)] += weight
    weights = [weight / math.sqrt(counts[kind(clip)]) for clip, weight in zip(clips, of_groups, strict=True)]
    if corpora is None:
        return weights
    _check_shares(corpora, {clip.corpus for clip in clips})
    totals: defaultdict[str, float] = defaultdict(float)
    for clip, weight in zip(clips, weights, strict=True):
        totals[clip.corpus] += weight
    return [
        corpora.get(clip.corpus, 0.0) * weight / totals[clip.corpus]
        for clip, weight in zip(clips, weights, strict=True)
    ]


def _check_shares(corpora: Mapping[str, float], present: set[str]) -> None:
    for name, share in corpora.items():
        if name not in present:
            raise ConfigError(
                f"no training clip belongs to the corpus '{name}'; choose one of {', '.join(sorted(present))}"
            )
        if not 0 <= share < math.inf:
            raise ConfigError(f"the share of the corpus '{name}' must be 0 or more, not {share}")
    if not any(corpora.values()):
        raise ConfigError("every corpus has a share of 0, so there is nothing to train on")


class BatchSource(ABC):
    """Gives training batches by step."""

    @abstractmethod
    def batch(self, step: int) -> TrainingBatch:
        """The batch of a step; the same for the same seed and step."""

    def batches(self, start: int, stop: int, workers: int = 0) -> Iterator[TrainingBatch]:
        """The batches of steps ``start`` to ``stop - 1``, drawn ahead by ``workers`` processes.

        The number of workers changes nothing about the batches.
        """
        if not workers:
            yield from map(self.batch, range(start, stop))
            return
        yield from DataLoader(
            _Steps(self), None, sampler=range(start, stop), num_workers=workers, prefetch_factor=PREFETCHED,
            collate_fn=_as_it_is, worker_init_fn=_ignore_interrupts,
        )  # fmt: skip


class Loader(BatchSource):
    """Draws training batches.

    Args:
        clips: labelled clips; those without features, evidence or a question are left out.
        caches: frozen features, one cache for each audio branch.
        questions: draws prompts and targets.
        evidence: about each clip; None for a model without evidence.
        batch_size: clips of a batch.
        questions_per_clip: maximum number of questions about a clip.
        seed: of everything random in the batches.
        corpora: share of each manifest of a mixture (see :func:`pengi.data.sources.read_mixture`).

    Raises:
        ConfigError: if no clip is left, or the shares do not fit the clips.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        caches: Sequence[FeatureCache],
        questions: QuestionMaker,
        evidence: ClipEvidence | None = None,
        *,
        batch_size: int,
        questions_per_clip: int,
        seed: int,
        corpora: Mapping[str, float] | None = None,
    ) -> None:
        self.clips = usable_clips(clips, caches, questions, evidence)
        if not self.clips:
            raise ConfigError(f"none of the {len(clips)} clips has features, evidence and a task to be asked")
        self.caches, self.questions, self.evidence = caches, questions, evidence
        self.batch_size, self.questions_per_clip, self.seed = batch_size, questions_per_clip, seed
        self._weights = clip_weights(self.clips, corpora)

    def batch(self, step: int) -> TrainingBatch:
        block, index = divmod(step, BATCHES_DRAWN_TOGETHER)
        rng = random.Random(f"{self.seed}:{block}")
        size = self.batch_size
        drawn = rng.choices(self.clips, self._weights, k=size * BATCHES_DRAWN_TOGETHER)
        drawn.sort(key=self._length)
        order = rng.sample(range(BATCHES_DRAWN_TOGETHER), BATCHES_DRAWN_TOGETHER)
        start = order[index] * size
        clips, pairs_rng = drawn[start : start + size], random.Random(f"{self.seed}:{step}:pairs")
        pairs = [draw_pairs(clip, self.questions, pairs_rng, self.questions_per_clip, self.evidence) for clip in clips]
        return collate(clips, pairs, self.caches, self.evidence)

    def _length(self, clip: Clip) -> int:
        """Approximate length of a clip's prefix: audio tokens plus words of evidence."""
        words = self.evidence.text(clip.id).count(" ") if self.evidence else 0
        return words + sum(cache.tokens(clip.id) for cache in self.caches)


def draw_pairs(
    clip: Clip, questions: QuestionMaker, rng: random.Random, count: int, evidence: ClipEvidence | None
) -> list[Pair]:
    """Up to ``count`` pairs about a clip, given the evidence if the model reads any."""
    return questions.about(clip, rng, count, evidence.by_clip[clip.id] if evidence else None)


def usable_clips(
    clips: Sequence[Clip],
    caches: Sequence[FeatureCache],
    questions: QuestionMaker,
    evidence: ClipEvidence | None = None,
) -> list[Clip]:
    """The clips with features, evidence if the model reads any, and something to be asked."""
    return [
        clip
        for clip in clips
        if all(clip.id in cache for cache in caches)
        and (evidence is None or clip.id in evidence.by_clip)
        and questions.fits(clip)
    ]


class _Steps(Dataset[TrainingBatch]):
    """Batches by step, for the worker processes."""

    def __init__(self, loader: BatchSource) -> None:
        self._loader = loader

    def __getitem__(self, step: int) -> TrainingBatch:
        return self._loader.batch(step)


def _ignore_interrupts(_: int) -> None:
    """Ignore Ctrl-C, which reaches every process of a terminal: the training process ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    """Replaces the function that collates samples to batches, because a step is a batch already."""
    return batch


def collate(
    clips: Sequence[Clip],
    drawn: Sequence[Sequence[Pair]],
    caches: Sequence[FeatureCache],
    evidence: ClipEvidence | None = None,
) -> TrainingBatch:
    """One batch of clips and, for each, its pairs."""
    ids = [clip.id for clip in clips]
    asked = [(row, pair) for row, group in enumerate(drawn) for pair in group]
    prompts = [pair.prompt if evidence is None else evidence.prompt(ids[row], pair.prompt) for row, pair in asked]
    batch = Batch(
        features=tuple(cache.batch(ids) for cache in caches),
        clip_E=torch.tensor([row for row, _ in asked]),
        prompts=tuple(prompts),
        targets=tuple(pair.target for _, pair in asked),
        evidence=None if evidence is None else tuple(evidence.text(clip_id) for clip_id in ids),
    )
    return TrainingBatch(batch, tuple(clips), tuple(pair for _, pair in asked))
