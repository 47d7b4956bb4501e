"""The loader: batches are a function of seed and step, and corpora come as often as the mixture says."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from pengi.conditioning.evidence import DetectedTag, Evidence
from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.config import EvidenceConfig
from pengi.data.features import FeatureCache
from pengi.data.loader import (
    BATCHES_DRAWN_TOGETHER,
    ClipEvidence,
    Loader,
    TrainingBatch,
    clip_weights,
    collate,
)
from pengi.data.manifest import Clip, QuestionAnswer
from pengi.data.phrases import Phrases
from pengi.data.questions import QuestionMaker
from pengi.data.tasks import Pair, labels_of
from pengi.errors import ConfigError

DOMAINS = {"animal": ["dog", "cat"], "environment": ["rain", "siren", "wind"], "digit": ["speech"]}


def clips_of(**counts: int) -> list[Clip]:
    return [
        Clip(id=f"{domain}-{index}", audio="x.wav", split="train", domain=domain,
             events=(DOMAINS[domain][index % len(DOMAINS[domain])],))
        for domain, count in counts.items()
        for index in range(count)
    ]  # fmt: skip


CLIPS = clips_of(animal=30, environment=10, digit=60)


def cache_of(clips: list[Clip], dim: int = 3) -> FeatureCache:
    """1 to 6 tokens for a clip, each holding the clip's place in the list."""
    lengths = [1 + index % 6 for index in range(len(clips))]
    values = np.repeat(np.arange(len(clips), dtype=np.float16), lengths)[:, None].repeat(dim, 1)
    ends = np.cumsum(lengths).tolist()
    spans = zip([0, *ends], ends, strict=False)
    return FeatureCache((values,), {clip.id: (0, *span) for clip, span in zip(clips, spans, strict=True)})


def loader(clips: list[Clip] = CLIPS, caches: list[FeatureCache] | None = None, seed: int = 0, **more: Any) -> Loader:
    questions = QuestionMaker(Phrases(labels_of(clips, {})))
    caches = [cache_of(clips)] if caches is None else caches
    return Loader(clips, caches, questions, batch_size=8, questions_per_clip=2, seed=seed, **more)


def described(drawn: TrainingBatch) -> tuple[Any, ...]:
    return tuple(clip.id for clip in drawn.clips), drawn.pairs, drawn.batch.clip_E.tolist()


def test_a_batch_repeats_for_its_seed_and_step() -> None:
    one, same, other = loader(), loader(), loader(seed=1)
    for step in (0, 5, 8, 100):
        expected = described(one.batch(step))
        assert described(same.batch(step)) == expected
        assert described(one.batch(step)) == expected
        assert described(other.batch(step)) != expected
    assert len({described(one.batch(step))[0] for step in range(20)}) == 20


def test_rows_examples_and_features_belong_together() -> None:
    batches = loader()
    index_of = {clip.id: index for index, clip in enumerate(CLIPS)}
    cache = batches.caches[0]
    for step in range(10):
        drawn = batches.batch(step)
        ((values, mask),) = drawn.batch.features
        assert len(drawn.clips) == len(values) == 8
        for row, clip in enumerate(drawn.clips):
            assert mask[row].sum() == cache.tokens(clip.id)
            assert (values[row][mask[row]] == index_of[clip.id]).all()
        assert drawn.batch.prompts == tuple(pair.prompt for pair in drawn.pairs)
        assert drawn.batch.targets == tuple(pair.target for pair in drawn.pairs)
        assert Counter(drawn.batch.clip_E.tolist()) == dict.fromkeys(range(8), 2)
        for row, pair in zip(drawn.batch.clip_E.tolist(), drawn.pairs, strict=True):
            if pair.task == "events":
                assert pair.target == drawn.clips[row].events[0]


def test_batches_hold_clips_of_similar_length() -> None:
    """Those of one block are sorted by length before they are cut into batches."""
    batches = loader(clips=clips_of(digit=600))
    cache = batches.caches[0]
    spreads = []
    for step in range(BATCHES_DRAWN_TOGETHER * 4):
        lengths = [cache.tokens(clip.id) for clip in batches.batch(step).clips]
        spreads.append(max(lengths) - min(lengths))
    assert sum(spreads) / len(spreads) < 1.5  # unsorted, it would be near 5


CORPORA = ("big", "small", "other")
IN_CORPORA = [clip.model_copy(update={"corpus": CORPORA[index % 3]}) for index, clip in enumerate(CLIPS)]


def test_corpora_are_drawn_in_their_shares() -> None:
    drawn = loader(IN_CORPORA, corpora={"big": 0.25, "small": 0.75})
    counts = Counter(clip.corpus for step in range(300) for clip in drawn.batch(step).clips)
    assert counts.keys() == {"big", "small"}
    assert counts["small"] / counts.total() == pytest.approx(0.75, abs=0.03)


def test_worker_processes_change_nothing() -> None:
    batches = loader()
    drawn = list(batches.batches(5, 12, workers=2))
    assert [described(one) for one in drawn] == [described(batches.batch(step)) for step in range(5, 12)]
    assert torch.equal(drawn[3].batch.features[0][0], batches.batch(8).batch.features[0][0])
    assert [described(one) for one in batches.batches(5, 12)] == [described(one) for one in drawn]


def test_clips_with_nothing_to_ask_are_never_drawn() -> None:
    nothing = [Clip(id=f"unknown-{n}", audio="x.wav", split="train") for n in range(5)]
    clips = [*nothing, *CLIPS[:3]]
    assert loader(clips).clips == CLIPS[:3]
    with pytest.raises(ConfigError, match="none of the 5 clips has features, evidence and a task to be asked"):
        loader(nothing)


def test_rare_labels_come_more_often_than_by_their_number() -> None:
    clips = clips_of(digit=90) + [clip.model_copy(update={"id": f"rare-{clip.id}"}) for clip in clips_of(animal=10)]
    clips = [clip.model_copy(update={"events": clip.events[:1], "domain": "x"}) for clip in clips]
    weights = clip_weights(clips)
    by_label: Counter[str] = Counter()
    for clip, weight in zip(clips, weights, strict=True):
        by_label[clip.events[0]] += weight  # type: ignore[assignment]
    assert by_label["speech"] / by_label["dog"] == pytest.approx(math.sqrt(90 / 5))
    words = [Clip(id=str(n), audio="x", split="train", domain="keyword", events=("speech",),
                  attributes={"keyword": "yes" if n < 9 else "no"}) for n in range(10)]  # fmt: skip
    assert clip_weights(words)[9] == pytest.approx(3 * clip_weights(words)[0])
    orders = [Clip(id=str(n), audio="x", split="train", domain="speech", events=("order",),
                   qa=(QuestionAnswer(question="what is ordered?", answer="tea" if n < 9 else "milk"),))
              for n in range(10)]  # fmt: skip
    assert clip_weights(orders)[9] == pytest.approx(3 * clip_weights(orders)[0])


def test_clips_of_one_voice_come_less_often_than_those_of_many() -> None:
    men = [
        Clip(id=str(n), audio="x", split="train", domain="gender", group="one" if n < 100 else f"other {n}",
             attributes={"gender": "male"})
        for n in range(200)
    ]  # fmt: skip
    weights = clip_weights(men)
    assert sum(weights[:100]) / sum(weights) == pytest.approx(10 / 110)


@pytest.mark.parametrize(
    ("corpora", "message"),
    [
        ({"big": 1.0, "bgi": 1.0}, "no training clip belongs to the corpus 'bgi'; choose one of big, other, small"),
        ({"big": -1.0}, "the share of the corpus 'big' must be 0 or more, not -1.0"),
        ({"big": 0.0}, "every corpus has a share of 0"),
    ],
)
def test_corpora_that_make_no_sense(corpora: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loader(IN_CORPORA, corpora=corpora)


def test_clips_without_features_are_never_drawn() -> None:
    cache = cache_of(CLIPS)
    fewer = FeatureCache(cache.blocks, {name: span for name, span in cache.spans.items() if "digit" not in name})
    batches = loader(caches=[cache, fewer])
    assert {clip.domain for step in range(50) for clip in batches.batch(step).clips} == {"animal", "environment"}


def evidence_of(clips: list[Clip]) -> ClipEvidence:
    """A tagger that detects what is there."""
    events = sorted({event for clip in clips for event in clip.events})
    vocabulary = Vocabulary(tuple(Tag(event, "sound") for event in events))
    found = {clip.id: Evidence(1.0, (DetectedTag(clip.events[0], "sound", 0.9),), "") for clip in clips}
    return ClipEvidence(found, vocabulary, EvidenceConfig())


def test_evidence_stands_beside_each_clip_and_what_a_prompt_names_in_front_of_it() -> None:
    known = CLIPS[:50]
    evidence = evidence_of(known)
    batches = loader(evidence=evidence)
    assert batches.clips == known  # of the others nothing is known
    named = 0
    for step in range(10):
        drawn = batches.batch(step)
        assert drawn.batch.evidence == tuple(evidence.text(clip.id) for clip in drawn.clips)
        for row, prompt, pair in zip(drawn.batch.clip_E.tolist(), drawn.batch.prompts, drawn.pairs, strict=True):
            assert prompt == evidence.prompt(drawn.clips[row].id, pair.prompt)
            named += prompt != pair.prompt
    assert named


def test_a_batch_of_text_alone_has_no_features() -> None:
    drawn = loader(caches=[], evidence=evidence_of(CLIPS)).batch(0)
    assert drawn.batch.features == ()
    assert drawn.batch.evidence is not None
    assert len(drawn.batch.evidence) == len(drawn.clips) == 8


def test_collate_keeps_groups_of_any_size() -> None:
    pairs = [Pair("events", f"prompt {n}", f"target {n}") for n in range(4)]
    drawn = collate(CLIPS[:3], [pairs[:1], [], pairs[1:]], [cache_of(CLIPS)])
    assert drawn.batch.clip_E.tolist() == [0, 2, 2, 2]
    assert drawn.batch.targets == ("target 0", "target 1", "target 2", "target 3")
    assert torch.equal(drawn.batch.features[0][1].sum(1), torch.tensor([1, 2, 3]))
