"""The context of a question: a scene, and what the evidence shows of it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from pengi import templates
from pengi.conditioning.evidence import (
    DECIMALS_BELOW_S,
    MAYBE,
    MIN_TIMED_S,
    DetectedTag,
    Evidence,
    overlap_s,
    spans_text,
)
from pengi.config import EvidenceConfig
from pengi.data.phrases import GENDERS, SPEAKING, Phrases
from pengi.data.scenes import Scene
from pengi.data.spoken import is_near
from pengi.data.tasks import MUSIC_DOMAINS, SOUND_DOMAINS, SPEECH_DOMAINS

SEEN = 0.002
"""Lowest probability of a tag of the scene that a question may rely on, and of an absent tag that is easily taken for
present. Both have the same limit, so that a strength word alone does not tell the answer."""
CONFUSED_SHARE = 0.4
"""Share of the draws of absent tags that include falsely detected ones."""
SPEECH = "speech"
REPEAT_FACTOR = 0.3
"""Factor on the weight of most families after they were drawn for a scene."""
_VOICE = re.compile(
    r"groan|scream|shout|\bcry|laugh|\bsing|humm|yell|sigh|whoop|giggl|chuckl|snicker|gasp|cheer|whisper|chant|choir"
    "|beatbox|wail|moan|whimper|yawn|children|crowd|vocal|rapping|yodel|opera"
)
SUNG = ("singing", "vocal music", "a capella", "rapping", "choir", "chant", "opera", "hip hop music")
"""Music without these tags and without a transcript certainly has no words."""
_CROWDS = frozenset({"crowd talking", "coffee shop chatter", "crowd"})


@dataclass(frozen=True)
class QuestionContext:
    """A scene and the evidence about it, for the families of questions.

    Attributes:
        evidence: what the model reads about the scene; None for a model that reads none.
    """

    scene: Scene
    evidence: Evidence | None
    phrases: Phrases
    config: EvidenceConfig
    rng: random.Random

    @cached_property
    def _detected(self) -> Mapping[str, DetectedTag]:
        return {tag.text: tag for tag in self.evidence.tags} if self.evidence else {}

    @cached_property
    def _written(self) -> frozenset[str]:
        written = self.evidence.written(self.config) if self.evidence else ()
        return frozenset(tag.text for tag in written if tag.probability >= MAYBE)

    def detected(self, tag: str) -> DetectedTag | None:
        """The detected tag with this name; None if it is not in the evidence."""
        vocabulary = self.phrases.vocabulary
        index = vocabulary.index(tag) if vocabulary else None
        return None if vocabulary is None or index is None else self._detected.get(vocabulary.tags[index].text)

    def probability(self, tag: str) -> float:
        """Probability of a tag in the evidence, 0 if it is missing; 1 if there is no evidence at all."""
        if self.evidence is None:
            return 1.0
        found = self.detected(tag)
        return found.probability if found else 0.0

    def is_seen(self, *tags: str) -> bool:
        """Whether each tag has at least the probability :data:`SEEN`, so that a question may rely on it."""
        return all(self.probability(tag) >= SEEN for tag in tags)

    def is_shown(self, tag: str) -> bool:
        """Whether the evidence shows a tag clearly enough for an answer to name it if the question does not."""
        found = self.detected(tag)
        return self.evidence is None or (found is not None and found.text in self._written)

    def is_foremost(self, tag: str) -> bool:
        """Whether the evidence shows a tag, and no tag of its group is more probable."""
        if self.evidence is None:
            return True
        found = self.detected(tag)
        return (
            found is not None
            and self.is_shown(tag)
            and not any(
                other.group == found.group and other.probability > found.probability for other in self.evidence.tags
            )
        )

    @cached_property
    def is_contradicted(self) -> bool:
        """Whether a tag that is certainly absent is more probable than every tag of the scene.

        A true open answer would then teach the model to distrust the evidence.
        """
        absent = {name.casefold() for name in self.scene.absent}
        present = {found.text for tag in self.scene.tags if (found := self.detected(tag)) is not None}
        for tag in self.evidence.tags if self.evidence else ():
            if tag.text in present:
                return False
            if tag.text.casefold() in absent:
                return True
        return False

    def has_times(self, *tags: str) -> bool:
        """Whether the evidence says when these tags are there."""
        return self.evidence is None or all(
            (found := self.detected(tag)) is not None and found.spans and found.probability >= SEEN for tag in tags
        )

    def has_some_times(self, *tags: str) -> bool:
        """Whether the evidence says when at least one of these tags is there."""
        return any(self.has_times(tag) for tag in tags)

    def starts_before(self, earlier: str, later: str) -> bool:
        """Whether one tag starts before another by the times that the evidence text has."""
        if self.evidence is None:
            return True
        if not self.has_times(earlier, later) or self.evidence.duration_s <= MIN_TIMED_S:
            return False
        step_s = 0.1 if self.evidence.duration_s < DECIMALS_BELOW_S else 1.0
        starts = [
            int(found.spans[0][0] / step_s + 0.5)
            for tag in (earlier, later)
            if (found := self.detected(tag)) is not None
        ]
        return starts[0] < starts[1]

    def overlap_s(self, one: str, other: str) -> float | None:
        """Overlap of two tags in the evidence in seconds, or minus the pause between them; None without times."""
        if self.evidence is None or not self.has_times(one, other):
            return None
        found, others = self.detected(one), self.detected(other)
        return overlap_s(found.spans, others.spans) if found and others else None

    def is_written_throughout(self, tag: str) -> bool:
        """Whether the evidence text has "throughout" for a tag."""
        found = self.detected(tag)
        return bool(self.evidence and found and spans_text(found.spans, self.evidence.duration_s) == "throughout")

    @cached_property
    def shown(self) -> tuple[str, ...]:
        """Tags of the scene that the evidence shows, the most probable first, for open answers; none if the evidence
        contradicts the scene."""
        shown = [] if self.is_contradicted else [tag for tag in self.scene.tags if self.is_shown(tag)]
        return tuple(sorted(shown, key=lambda tag: -self.probability(tag)))

    @cached_property
    def speech(self) -> bool | None:
        """Whether someone speaks; None if that is not known."""
        tags, domain = self.scene.tags, self.scene.domain
        if domain in SPEECH_DOMAINS or any(self.phrases.category(tag) == "speech" for tag in tags):
            return True
        if self.scene.transcript == "":
            return False
        if self.is_partly_known:
            return None
        if domain == "music" or any(self.phrases.category(tag) == "music" for tag in tags):
            return None if self.may_be_sung else False
        if self.scene.is_recorded and self.probability(SPEECH) >= MAYBE and self.evidence and self.evidence.transcript:
            return None  # somebody may speak although no label says so
        known = domain in SOUND_DOMAINS | MUSIC_DOMAINS or all(self.phrases.category(tag) for tag in tags)
        return False if tags and known and not any(self.phrases.holds_voices(tag) for tag in tags) else None

    @property
    def may_be_sung(self) -> bool:
        """Whether music may have words; its genre does not determine that."""
        if self.evidence is None or self.evidence.transcript != "":
            return True
        return any(self.probability(tag) >= SEEN for tag in (SPEECH, *SUNG))

    @cached_property
    def music(self) -> bool | None:
        """Whether there is music; None if that is not known."""
        categories = [self.phrases.category(tag) for tag in self.scene.tags]
        if self.scene.domain in MUSIC_DOMAINS or any(self.phrases.is_musical(tag) for tag in self.scene.tags):
            return True
        unclear = {"", "scene"} | ({"human"} if self.scene.is_recorded else set())
        if not categories:
            return False if self.scene.is_complete else None
        return None if unclear & set(categories) or "singing" in " ".join(self.scene.tags) else False

    @cached_property
    def has_voice(self) -> bool:
        """Whether there is a voice, perhaps without words."""
        return any(_VOICE.search(tag) for tag in self.scene.tags)

    def is_unclear(self, question: str) -> bool:
        """Whether a question about a voice is ambiguous, because the recording has a voice but no speech."""
        return "voice" in question and self.has_voice and not self.speech

    @property
    def is_partly_known(self) -> bool:
        """Whether only a caption is known, such as "men are talking"."""
        return bool(self.scene.captions) and not self.scene.is_complete

    @cached_property
    def speakers(self) -> tuple[str, ...] | None:
        """Who speaks, such as "a man", each once; None if that is not known."""
        if self.speech is False:
            return ()
        found = [SPEAKING[tag] for tag in self.scene.tags if tag in SPEAKING]
        who = GENDERS.get(self.scene.attributes.get("gender", ""))
        if who is not None and len(found) < 2:
            return (f"a {who}",)
        return tuple(found) if found and not self.is_partly_known else None

    @cached_property
    def speaker_count(self) -> str | None:
        """How many people speak, in words; None if that is not known."""
        if self.speech is False:
            return "none"
        if _CROWDS & set(self.scene.tags):
            return "many"
        if self.is_partly_known or self.speech is None or (self.scene.is_recorded and len(self.scene.tags) > 1):
            return None
        return templates.NUMBERS[max(1, len(self.speakers or ()))]

    @property
    def truth(self) -> str | None:
        """What is said, as far as it is known."""
        return self.scene.transcript or self.scene.attributes.get("keyword") or self.scene.attributes.get("digit")

    @cached_property
    def transcript(self) -> str | None:
        """The evidence's transcript, or without evidence the true one; empty if nothing is said, None if it may be
        wrong."""
        if self.speech is False:
            return ""
        truth = self.truth
        if self.evidence is None:
            return truth
        text = self.evidence.transcript
        if not text or self.speech is None:
            return None
        if truth is None:
            return text if self.scene.attributes.get("language", "English") == "English" else None
        return text if is_near(truth, text) else None

    def absent(self, count: int = 1) -> list[str]:
        """``count`` tags that are certainly absent, some of them falsely detected (:data:`CONFUSED_SHARE`). If too few
        are absent, none."""
        absent = self.scene.absent
        if len(absent) < count:
            return []
        chosen: dict[str, None] = {}
        if self.evidence is not None and self.rng.random() < CONFUSED_SHARE:
            known = frozenset(absent)
            confused = [t.text for t in self.evidence.tags if SEEN <= t.probability < 0.5 and t.text in known]
            chosen.update(dict.fromkeys(confused[: self.rng.randint(1, 3)]))
        while len(chosen) < count:
            chosen[self.rng.choice(absent)] = None
        return self.rng.sample(list(chosen), count)

    def named(self, tag: str) -> str:
        """A tag as a question names it: "a dog barking", or "a dog"."""
        thing = self.phrases.thing(tag)
        return thing if thing and self.rng.random() < 0.35 else self.phrases.phrase(tag)


@dataclass(frozen=True)
class Answered:
    """A question and its answer. ``is_prompt``: whether the question is a complete prompt, which is not reworded."""

    question: str
    answer: str
    is_prompt: bool = False


@dataclass(frozen=True)
class Family:
    """One kind of question. ``ask`` returns None if the scene does not determine an answer.

    ``repeat_factor``: factor on the weight after the family was drawn for a scene.
    """

    name: str
    weight: float
    ask: Callable[[QuestionContext], Answered | None]
    repeat_factor: float = REPEAT_FACTOR
