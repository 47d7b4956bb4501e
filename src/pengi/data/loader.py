"""Training batches as a function of (seed, step), so that a resumed run sees exactly the data it would have seen.

Shape suffixes: A clips, T tokens.
"""

from __future__ import annotations

import math
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pengi.config import Frozen
from pengi.data.features import FeatureCache
from pengi.data.manifest import Clip, Label
from pengi.data.tasks import SOUND_DOMAINS as SOUND_DOMAINS
from pengi.data.tasks import Pair, PairMaker
from pengi.errors import ConfigError
from pengi.mapper import likeliest_words
from pengi.model import Batch

# So many batches are drawn together and sorted by length, which saves padding.
BATCHES_DRAWN_TOGETHER = 8
FEWEST_HEARD = 0.03  # share of a tagger's classes
PREFETCHED = 4  # batches that each worker process draws ahead


class Mixture(Frozen):
    """How often clips are drawn: the chance of each domain, and how many clips and pairs make a batch.

    ``corpora`` are the shares of the manifests of a mixture (see :func:`pengi.data.sources.read_mixture`); the domains'
    shares hold inside each of them, for those of its clips that have one of the domains.
    """

    domains: dict[str, float] | None = None
    corpora: dict[str, float] | None = None
    clips: int = Field(16, ge=1)
    pairs: int = Field(3, ge=1)
    class_directions: float = Field(0.0, ge=0, le=1, description="share of sound clips that become class directions")
    word_targets: float = Field(0.0, ge=0, le=1, description="share of sound clips that are asked about as told words")
    word_dropout: float = Field(0.0, ge=0, le=1, description="share of sound clips of which only some words are told")


@dataclass(frozen=True)
class TrainingBatch:
    """A batch for the model, and the clip behind each of its rows."""

    batch: Batch
    clips: tuple[Clip, ...]
    pairs: tuple[Pair, ...]
    moved_to: tuple[int | None, ...]
    """For each row the AudioSet class that its audio tokens are to be moved to, where it is not a real example."""
    hidden: tuple[frozenset[int], ...]
    """For each row the classes that a branch of words does not tell."""


FactLogits = Callable[[Sequence[str]], Tensor]
"""What probes hear of clips, by their ids: ``float32[A, F]``."""


@dataclass(frozen=True, eq=False)
class ToldWords:
    """What a branch of words (:class:`pengi.mapper.WordsMapper`) tells of clips."""

    words: tuple[str, ...]
    classes: tuple[int, ...]
    """The class of each word."""
    logits: Mapping[str, Tensor]
    """Clip id -> logits of the words, ``float32[V]``."""
    count: int
    least: float

    def draw(self, clip_id: str, hidden: frozenset[int], rng: random.Random) -> str:
        """One of the words that are told of a clip where some classes are hidden, by the squares of the shares told.

        Their squares, since an answer is the likeliest word, not one drawn by its share: so it is seen more often.
        """
        unheard_V = torch.tensor([index in hidden for index in self.classes])
        logits_1V = self.logits[clip_id].masked_fill(unheard_V, -math.inf)[None]
        share_1K, best_1K = likeliest_words(logits_1V, self.count, self.least)
        places: list[int] = best_1K[0].tolist()
        return self.words[rng.choices(places, (2.0 * share_1K[0]).exp().tolist())[0]]

    def classes_of(self, clip: Clip) -> set[int]:
        """The classes of the words that are right for a clip."""
        return {index for word, index in zip(self.words, self.classes, strict=True) if word in clip.events}


@dataclass(frozen=True)
class DirectionClasses:
    """AudioSet classes that pseudo-examples are drawn for: the index, the words and the chance of each."""

    labels: tuple[Label, ...]
    weights: tuple[float, ...]

    def chances(self, place_of: Mapping[str, int]) -> Tensor:
        """Chance of each word ``float32[V]``, by its place; classes without a word are left out."""
        total = sum(self.weights)
        chance_V = torch.zeros(len(place_of))
        for label, weight in zip(self.labels, self.weights, strict=True):
            if label.label in place_of:
                chance_V[place_of[label.label]] += weight / total
        return chance_V


def clip_weights(
    clips: Sequence[Clip], domains: Mapping[str, float] | None, corpora: Mapping[str, float] | None = None
) -> list[float]:
    """Chance of each clip: its corpus' share, within it its domain's, within that 1/sqrt(clips of the same answer).

    Raises:
        ConfigError: for a domain or corpus that no clip is of, or a negative share, or if all shares are zero.
    """

    def kind(clip: Clip) -> tuple[str, ...]:
        attributes = clip.attributes
        special = [
            str(attributes[name]) for name in ("keyword", "digit", "language", "instrument") if name in attributes
        ]
        return (clip.domain, *clip.events, *special)

    counts = Counter(kind(clip) for clip in clips)
    weights = [1.0 / math.sqrt(counts[kind(clip)]) for clip in clips]
    if domains is not None:
        _check_shares("domain", domains, {clip.domain for clip in clips})
        weights = _shared_out(weights, [(clip.corpus, clip.domain) for clip in clips], lambda group: group[1], domains)
    if corpora is not None:
        _check_shares("corpus", corpora, {clip.corpus for clip in clips})
        weights = _shared_out(weights, [(clip.corpus,) for clip in clips], lambda group: group[0], corpora)
    return weights


def _shared_out(
    weights: Sequence[float],
    groups: Sequence[tuple[str, ...]],
    name_of: Callable[[tuple[str, ...]], str],
    shares: Mapping[str, float],
) -> list[float]:
    """Weights that add up to its share in every group that has any; groups without a named share get none."""
    totals: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for group, weight in zip(groups, weights, strict=True):
        totals[group] += weight
    return [
        shares.get(name_of(group), 0.0) * weight / totals[group] if totals[group] else 0.0
        for group, weight in zip(groups, weights, strict=True)
    ]


def _check_shares(what: str, shares: Mapping[str, float], present: set[str]) -> None:
    for name, share in shares.items():
        if name not in present:
            raise ConfigError(f"no training clip is of the {what} '{name}'; there are {', '.join(sorted(present))}")
        if not 0 <= share < math.inf:
            raise ConfigError(f"the share of the {what} '{name}' must be 0 or more, not {share}")
    if not any(shares.values()):
        raise ConfigError(f"every {what} has a share of 0, so there is nothing to train on")


class Loader:
    """Draws training batches.

    Args:
        clips: labelled clips; those that are missing from a cache or have nothing to be asked are left out.
        caches: frozen features, one cache for each audio branch.
        pairs: draws prompts and targets.
        mixture: how often what is drawn.
        seed: of everything random in the batches.
        directions: what class-direction examples may stand for; needed if the mixture asks for any.
        facts: what the model is told that its probes hear of a clip (:mod:`pengi.facts`); it asks them if not given.
        told: what a branch of words tells of clips. Without it no clip is asked about as these words, and none of
            them is hidden.

    Raises:
        ConfigError: if no clip is left, or the mixture does not fit the clips.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        caches: Sequence[FeatureCache],
        pairs: PairMaker,
        mixture: Mixture,
        seed: int,
        directions: DirectionClasses | None = None,
        facts: FactLogits | None = None,
        told: ToldWords | None = None,
    ) -> None:
        if mixture.class_directions + mixture.word_targets > 1:
            raise ConfigError("class_directions and word_targets are shares of the same clips, more than 1 together")
        self.clips = [clip for clip in clips if all(clip.id in cache for cache in caches) and pairs.fits(clip)]
        if not self.clips:
            raise ConfigError(f"none of the {len(clips)} clips has both features and a task to be asked")
        self.caches = caches
        self.pairs = pairs
        self.mixture = mixture
        self.seed = seed
        self.directions = directions
        self.facts = facts
        self.told = told
        self._weights = clip_weights(self.clips, mixture.domains, mixture.corpora)

    def resized(self, *, clips: int, pairs: int) -> Loader:
        """The same clips and chances in batches of another size."""
        mixture = self.mixture.model_copy(update={"clips": clips, "pairs": pairs})
        return Loader(self.clips, self.caches, self.pairs, mixture, self.seed, self.directions, self.facts, self.told)

    def telling(self, told: ToldWords) -> Loader:
        """The same with clips that may be asked about as these words, and of which some words may be hidden."""
        return Loader(
            self.clips, self.caches, self.pairs, self.mixture, self.seed, self.directions, self.facts, told
        )  # fmt: skip

    def chances(self) -> list[float]:
        """Chance of each clip."""
        total = sum(self._weights)
        return [weight / total for weight in self._weights]

    def batch(self, step: int) -> TrainingBatch:
        """The batch of a step; the same for the same seed and step."""
        block, place = divmod(step, BATCHES_DRAWN_TOGETHER)
        rng = random.Random(f"{self.seed}:{block}")
        size = self.mixture.clips
        drawn = rng.choices(self.clips, self._weights, k=size * BATCHES_DRAWN_TOGETHER)
        drawn.sort(key=lambda clip: sum(cache.tokens(clip.id) for cache in self.caches))
        order = rng.sample(range(BATCHES_DRAWN_TOGETHER), BATCHES_DRAWN_TOGETHER)
        start = order[place] * size
        return self._draw_pairs(drawn[start : start + size], random.Random(f"{self.seed}:{step}:pairs"))

    def batches(self, start: int, stop: int, workers: int = 0) -> Iterator[TrainingBatch]:
        """The batches of steps ``start`` to ``stop - 1``, drawn ahead by so many worker processes.

        The number of workers changes nothing about the batches.
        """
        if not workers:
            yield from map(self.batch, range(start, stop))
            return
        yield from DataLoader(
            _Steps(self), None, sampler=range(start, stop), num_workers=workers, prefetch_factor=PREFETCHED,
            collate_fn=_as_it_is, worker_init_fn=_ignore_interrupts,
        )  # fmt: skip

    def _draw_pairs(self, clips: Sequence[Clip], rng: random.Random) -> TrainingBatch:
        drawn, moved_to, hidden = [], [], []
        moved, told = self.mixture.class_directions, self.mixture.word_targets
        for clip in clips:
            share = rng.random() if clip.domain in SOUND_DOMAINS else 1.0
            index = self._direction(rng) if share < moved else None
            moved_to.append(index)
            asked = clip if index is None else self.as_class(clip, index)
            hidden.append(frozenset[int]())
            if self.told is not None and clip.id in self.told.logits:
                as_told = moved <= share < moved + told
                right = set() if as_told else self.told.classes_of(asked)
                hidden[-1] = self._hide(right if index is None else {index}, rng)
                if as_told:
                    asked = _named(clip, self.told.draw(clip.id, hidden[-1], rng))
            drawn.append(self.pairs.draw(asked, rng, self.mixture.pairs))
        return collate(clips, drawn, self.caches, moved_to, hidden, self.facts)

    def _hide(self, right: Collection[int], rng: random.Random) -> frozenset[int]:
        """Classes that the branch of words does not tell of a clip; never the right ones, and never all.

        How many are left is drawn log-uniformly: from all of them to so few that the list holds what is hardly heard.
        """
        assert self.told is not None
        if rng.random() >= self.mixture.word_dropout:
            return frozenset()
        kept = FEWEST_HEARD ** rng.random()
        classes = sorted(set(self.told.classes))
        hidden = frozenset(index for index in classes if index not in right and rng.random() >= kept)
        return hidden if len(hidden) < len(classes) else frozenset()

    def _direction(self, rng: random.Random) -> int:
        assert self.directions is not None, "class directions are asked for but none are given"
        return rng.choices(range(len(self.directions.labels)), self.directions.weights)[0]

    def as_class(self, clip: Clip, index: int) -> Clip:
        """The clip as which a moved embedding is asked about."""
        assert self.directions is not None
        return _named(clip, self.directions.labels[index].label)


def _named(clip: Clip, label: str) -> Clip:
    """A clip of which one event is known and nothing else."""
    return Clip(id=f"class:{label}", audio=clip.audio, split=clip.split, events=(label,))


class _Steps(Dataset[TrainingBatch]):
    """Batches by step, as worker processes ask for them."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getitem__(self, step: int) -> TrainingBatch:
        return self._loader.batch(step)


def _ignore_interrupts(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; the one that trains decides when the others end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    """In the place of a function that makes batches of samples: a step is a batch already."""
    return batch


def collate(
    clips: Sequence[Clip],
    drawn: Sequence[Sequence[Pair]],
    caches: Sequence[FeatureCache],
    moved_to: Sequence[int | None] | None = None,
    hidden: Sequence[frozenset[int]] | None = None,
    facts: FactLogits | None = None,
) -> TrainingBatch:
    """One batch of clips and, for each, its pairs."""
    ids = [clip.id for clip in clips]
    pairs = tuple(pair for group in drawn for pair in group)
    batch = Batch(
        features=tuple(cache.batch(ids) for cache in caches),
        facts_AF=facts(ids) if facts else None,
        clip_E=torch.tensor([index for index, group in enumerate(drawn) for _ in group]),
        prompts=tuple(pair.prompt for pair in pairs),
        targets=tuple(pair.target for pair in pairs),
    )
    return TrainingBatch(
        batch, tuple(clips), pairs, tuple(moved_to or [None] * len(clips)), tuple(hidden or [frozenset()] * len(clips))
    )
