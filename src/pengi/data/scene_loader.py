"""Training batches of drawn scenes without audio, from which the language model learns to answer from evidence."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pengi.batching import batched
from pengi.conditioning.evidence import Evidence, evidence_text
from pengi.data.drawing import SceneDrawer
from pengi.data.loader import BATCHES_DRAWN_TOGETHER, BatchSource, ClipEvidence, TrainingBatch, collate
from pengi.data.manifest import Clip
from pengi.data.questions import QuestionMaker
from pengi.data.simulation import Simulator
from pengi.data.tasks import Pair


@dataclass(frozen=True)
class _Example:
    """A scene's number, its simulated evidence and the pairs about it."""

    number: int
    evidence: Evidence
    pairs: list[Pair]


class SceneLoader(BatchSource):
    """Draws batches of scenes, each with simulated evidence and questions.

    Args:
        drawer: gives the scenes by number.
        simulator: simulates the evidence about them.
        questions: draws the pairs about them.
        batch_size: scenes of a batch.
        questions_per_clip: questions about a scene.
        seed: of everything random except the scenes themselves.
    """

    def __init__(
        self,
        drawer: SceneDrawer,
        simulator: Simulator,
        questions: QuestionMaker,
        *,
        batch_size: int,
        questions_per_clip: int,
        seed: int,
    ) -> None:
        self.drawer, self.simulator, self.questions = drawer, simulator, questions
        self.batch_size, self.questions_per_clip, self.seed = batch_size, questions_per_clip, seed
        self._drawn: tuple[int, list[TrainingBatch]] = (-1, [])

    def example(self, number: int) -> tuple[Evidence, list[Pair]]:
        """The evidence about the scene of a number, and the pairs about it; the same every time."""
        rng = random.Random(f"{self.seed}:scene:{number}")
        scene = self.drawer.scene(number)
        evidence = self.simulator.evidence(scene, rng)
        return evidence, self.questions.draw(scene, rng, self.questions_per_clip, evidence)

    def batch(self, step: int) -> TrainingBatch:
        """The batch of a step; its scenes have evidence of similar length."""
        block, index = divmod(step, BATCHES_DRAWN_TOGETHER)
        if block != self._drawn[0]:
            self._drawn = block, self._draw_block(block)
        return self._drawn[1][index]

    def _draw_block(self, block: int) -> list[TrainingBatch]:
        """Batches that are drawn together, in random order."""
        size = self.batch_size * BATCHES_DRAWN_TOGETHER
        examples = []
        for number in range(block * size, (block + 1) * size):
            examples.append(_Example(number, *self.example(number)))
        examples.sort(key=lambda example: len(evidence_text(example.evidence, self.questions.config)))
        batches = [self._collated(batch) for batch in batched(examples, self.batch_size)]
        return random.Random(f"{self.seed}:{block}").sample(batches, len(batches))

    def _collated(self, examples: Sequence[_Example]) -> TrainingBatch:
        clips = [Clip(id=f"scene-{example.number}", audio="none", split="train") for example in examples]
        by_clip = {clip.id: example.evidence for clip, example in zip(clips, examples, strict=True)}
        evidence = ClipEvidence(by_clip, self.simulator.vocabulary, self.questions.config)
        return collate(clips, [example.pairs for example in examples], (), evidence)


class StagedBatches(BatchSource):
    """First scenes alone, then clips with some scenes among them.

    Args:
        scenes: batches of drawn scenes.
        clips: batches of recordings.
        steps: number of first steps that are about scenes.
        share: share of the later steps that are about scenes.
        seed: for the choice of these later steps.
    """

    def __init__(self, scenes: BatchSource, clips: BatchSource, steps: int, share: float, seed: int) -> None:
        self.scenes, self.clips, self.steps, self.share, self.seed = scenes, clips, steps, share, seed

    def batch(self, step: int) -> TrainingBatch:
        is_scenes = step < self.steps or random.Random(f"{self.seed}:{step}:stage").random() < self.share
        return (self.scenes if is_scenes else self.clips).batch(step)
