"""Training questions about scenes, with true answers: the one place that makes training pairs.

A family asks one kind of thing (:mod:`pengi.data.families`): whether a sound is there, what is said, what came first.
Its answer follows from the scene. Where evidence is given, too, the language model is to answer from that evidence:

- An open answer (a caption, "what is this sound?") names only what the evidence shows as ``maybe`` or more. Naming what
  was missed would teach to invent.
- A question that names things (yes or no, which of these) keeps the true answer, whatever was detected: so the model
  learns how far a "maybe" can be trusted. Where the answer needs two things (an order), both must be detected.
- What is said is answered with the transcript, if that is near to the truth; if not, it cannot be told.
- What is measured (level, length, note, tempo) is answered as it was measured, unless that is known to be wrong.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from pengi import templates
from pengi.conditioning.evidence import Evidence
from pengi.config import EvidenceConfig
from pengi.data.asked import Answered, Asked
from pengi.data.families import FAMILIES
from pengi.data.phrases import Phrases
from pengi.data.scenes import Scene
from pengi.data.tasks import Pair
from pengi.data.wordings import as_typed
from pengi.errors import ConfigError, no_such

BARE_QUESTIONS, PAPER_QUESTIONS = 0.4, 0.1
"""Shares of questions without any words around them, and in the paper's wording; the others as the engine asks."""
AGAIN = 0.3
"""By this the weight of a family falls once it was drawn for a scene."""
_TRIES = 6


class QuestionMaker:
    """Draws training pairs about scenes.

    Args:
        phrases: how tags are said.
        config: what of the evidence the model reads.
        weights: of families by name; families that are not named are not asked. All by their own weights if not given.

    Raises:
        ConfigError: for weights of unknown families, negative ones, or none above zero.
    """

    def __init__(
        self, phrases: Phrases, config: EvidenceConfig | None = None, weights: Mapping[str, float] | None = None
    ) -> None:
        self.phrases = phrases
        self.config = config or EvidenceConfig()
        if weights is not None:
            check_weights(weights, list(FAMILIES))
        self.families = [
            (family, weight)
            for family in FAMILIES.values()
            if (weight := family.weight if weights is None else weights.get(family.name, 0.0)) > 0
        ]

    def draw(self, scene: Scene, rng: random.Random, count: int, evidence: Evidence | None = None) -> list[Pair]:
        """Up to ``count`` different pairs about a scene.

        Args:
            scene: what is asked about.
            rng: what is drawn with.
            count: how many.
            evidence: what the model reads about the scene, if it reads any; see the module.
        """
        asked = Asked(scene, evidence, self.phrases, self.config, rng)
        families, weights = [family for family, _ in self.families], [weight for _, weight in self.families]
        drawn: dict[tuple[str, str], Pair] = {}
        for _ in range(_TRIES * count):
            if len(drawn) == count or not families:
                break
            index = rng.choices(range(len(families)), weights)[0]
            answered = families[index].ask(asked)
            if answered is None:
                del families[index], weights[index]
                continue
            weights[index] *= AGAIN
            pair = Pair(families[index].name, prompt_of(answered, rng), answered.answer)
            drawn.setdefault((pair.task, answered.question), pair)
        return list(drawn.values())


def prompt_of(answered: Answered, rng: random.Random) -> str:
    """A question as it may reach the model: as the engine asks it, in the paper's wording, or as somebody types it."""
    if answered.is_prompt:
        return answered.question
    question = as_typed(answered.question, rng)
    draw = rng.random()
    if draw < BARE_QUESTIONS:
        return question
    return templates.QUESTIONS[draw < BARE_QUESTIONS + PAPER_QUESTIONS].format(question=question)


def check_weights(weights: Mapping[str, float], names: Sequence[str]) -> None:
    """Check weights of families of questions.

    Raises:
        ConfigError: for an unknown family, a negative weight, or none above zero.
    """
    for name, weight in weights.items():
        if name not in names:
            raise ConfigError(no_such("task", name, names))
        if not weight >= 0:
            raise ConfigError(f"the weight of the task '{name}' must be 0 or more, not {weight}")
    if not any(weights.values()):
        raise ConfigError("every task has a weight of 0, so there is nothing to train on")
