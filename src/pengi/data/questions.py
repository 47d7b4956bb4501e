"""Training questions about scenes, with true answers. All training pairs are made here.

A family asks one kind of thing (:mod:`pengi.data.families`): whether a sound is there, what is said, what came first.
Its answer follows from the scene. If there is evidence, the language model must be able to answer from it:

- An open answer (a caption, "what is this sound?") names only what the evidence shows as ``maybe`` or more. Naming a
  missed sound would teach the model to invent. If the most probable sound is a false alarm, no open question is asked:
  its true answer would teach the model to distrust the evidence.
- A question that names things (yes or no, which of these) keeps the true answer, whatever was detected. So the model
  learns how reliable a "maybe" is. If the answer depends on two things (an order), both must be detected; for which of
  two is louder, one is enough.
- A question about what is said is answered with the transcript if that is close to the truth. It is refused if speech
  has no transcript or is not English.
- A question about what is measured (level, length, note, tempo) is answered with the measurement, unless that is known
  to be wrong.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from pengi import templates
from pengi.conditioning.evidence import Evidence
from pengi.config import EvidenceConfig
from pengi.data.families import FAMILIES
from pengi.data.manifest import Clip
from pengi.data.phrases import Phrases
from pengi.data.question_context import Answered, QuestionContext
from pengi.data.scenes import Scene, scene_of
from pengi.data.tasks import Pair
from pengi.data.wordings import as_typed

OTHER_FORMS = 0.1
"""Share of questions that are not worded as the engine words them, see :func:`prompt_of`."""
UNANSWERABLE = "unanswerable"
"""This family keeps its share of the questions even if a scene answers few of the other families."""
_TRIES = 6


class QuestionMaker:
    """Draws training pairs about scenes.

    Args:
        phrases: wordings of tags.
        config: which parts of the evidence the model reads.
        weights: of the families that are asked; if not given, all are, each with its own weight.
    """

    def __init__(
        self, phrases: Phrases, config: EvidenceConfig | None = None, weights: Mapping[str, float] | None = None
    ) -> None:
        self.phrases = phrases
        self.config = config or EvidenceConfig()
        self._weights = weights or {name: family.weight for name, family in FAMILIES.items()}

    def about(self, clip: Clip, rng: random.Random, count: int, evidence: Evidence | None = None) -> list[Pair]:
        """Up to ``count`` different pairs about a clip; see :meth:`draw`."""
        return self.draw(scene_of(clip, self.phrases), rng, count, evidence)

    def fits(self, clip: Clip) -> bool:
        """Whether anything can be asked about a clip."""
        return any(self.about(clip, random.Random(seed), 1) for seed in range(_TRIES))

    def draw(self, scene: Scene, rng: random.Random, count: int, evidence: Evidence | None = None) -> list[Pair]:
        """Up to ``count`` different pairs about a scene.

        Args:
            scene: the subject of the questions.
            rng: random generator.
            count: maximum number of pairs.
            evidence: the model's evidence about the scene; None for a model without evidence.
        """
        if evidence is None and not _is_known(scene):
            return []
        context = QuestionContext(scene, evidence, self.phrases, self.config, rng)
        families = dict(self._weights)
        refused = families.pop(UNANSWERABLE, 0.0) / sum(self._weights.values())
        drawn: dict[tuple[str, str], Pair] = {}
        for _ in range(_TRIES * count):
            if len(drawn) == count:
                break
            refusing = rng.random() < refused
            name, answered = _answered(context, {UNANSWERABLE: 1.0} if refusing else families)
            if answered is not None:
                drawn.setdefault(
                    (name, answered.question),
                    Pair(name, prompt_of(answered, rng, bare=evidence is not None), answered.answer),
                )
        return list(drawn.values())


def _answered(context: QuestionContext, families: dict[str, float]) -> tuple[str, Answered | None]:
    """A family and its question, or "" and None. Families without an answer are removed from ``families``."""
    while families:
        name = context.rng.choices(list(families), list(families.values()))[0]
        answered = FAMILIES[name].ask(context)
        families[name] *= FAMILIES[name].repeat_factor
        if answered is None or answered.is_prompt:  # another wording of a task would be nothing new
            del families[name]
        if answered is not None:
            return name, answered
    return "", None


def _is_known(scene: Scene) -> bool:
    """Whether anything is known about a scene."""
    known = scene.events or scene.attributes or scene.captions or scene.qa or scene.metadata or scene.transcript
    return bool(known) or scene.is_complete


def prompt_of(answered: Answered, rng: random.Random, *, bare: bool) -> str:
    """A question as the engine words it, and sometimes in another form.

    Args:
        answered: the question.
        rng: random generator.
        bare: whether the engine sends questions without added words, as for a model with evidence.
    """
    if answered.is_prompt:
        return answered.question
    question = as_typed(answered.question, rng)
    if bare == (rng.random() >= OTHER_FORMS):
        return question
    return rng.choice(templates.QUESTIONS[: 2 if bare else 1]).format(question=question)
