"""The text that the language model reads about a recording, and explanations of answers."""

from __future__ import annotations

from collections.abc import Sequence

from pengi import templates
from pengi.conditioning.evidence import (
    DetectedTag,
    Evidence,
    evidence_text,
    queried_prompt,
    queried_tags,
    strength,
)
from pengi.conditioning.prefix import own_text, shared_text
from pengi.conditioning.vocabulary import Vocabulary
from pengi.config import EvidenceConfig
from pengi.encoding import Encoded
from pengi.model import PengiModel
from pengi.results import Explanation, TagScore

MAX_SHOWN_LABELS = 5
"""Prompts for at most this number of labels include how probable the tags are that the labels name."""


class Prompting:
    """Puts prompts and evidence into the words that a model was trained to read."""

    def __init__(self, model: PengiModel) -> None:
        self._model = model

    def question(self, text: str) -> str:
        """A question as the model was trained to read it: in a chat as it is, elsewhere in the paper's words."""
        return text.strip() if self._model.config.language_model.chat else templates.question_prompt(text)

    def evidence(self, encoded: Sequence[Encoded]) -> list[str] | None:
        """The evidence about each recording as the language model reads it; None for a model without evidence."""
        config = self._model.config.evidence
        if config is None:
            return None
        return [evidence_text(item.evidence or Evidence(item.duration_s), config) for item in encoded]

    def own(self, recording: Encoded, prompt: str, labels: Sequence[str] = ()) -> str:
        """A prompt as the language model reads it; see :func:`pengi.conditioning.evidence.queried_prompt`."""
        if recording.evidence is None or self._vocabulary is None:
            return prompt
        return queried_prompt(recording.evidence, self._vocabulary, prompt, labels)

    def explanation(
        self, recording: Encoded, prompt: str | None, *, extra: str = "", labels: Sequence[str] = ()
    ) -> Explanation:
        """What an answer is based on.

        Args:
            recording: what is asked about.
            prompt: None if the language model is not asked.
            extra: text that the answer continues.
            labels: labels whose tags are included in the prompt.
        """
        evidence = recording.evidence or Evidence(recording.duration_s)
        config = self._model.config.evidence or EvidenceConfig()
        vocabulary = self._vocabulary if recording.evidence else None
        queried = queried_tags(evidence, vocabulary, prompt or "", labels) if vocabulary else ()
        tags = dict.fromkeys([*evidence.written(config), *queried])
        return Explanation(
            tags=tuple(map(tag_score, tags)),
            transcript=evidence.transcript,
            descriptors=evidence.descriptors,
            prompt=None if prompt is None else self._read(recording, prompt, labels) + extra,
        )

    @property
    def _vocabulary(self) -> Vocabulary | None:
        """The tags that prompts may name; None for a model without a tagger or without evidence."""
        tagger = self._model.tagger
        return None if tagger is None or self._model.config.evidence is None else tagger.vocabulary

    def _read(self, recording: Encoded, prompt: str, labels: Sequence[str]) -> str:
        """The prefix of a prompt as text, with a mark for the audio embeddings."""
        tokens = [(row_TD[None], row_TD.new_ones(1, len(row_TD)).bool()) for row_TD in recording.tokens]
        count = sum(int(mask_BP.sum()) for _, mask_BP in self._model.map_audio(tokens))
        mark = f"[audio: {count} embeddings]" if count else ""
        if not self._model.config.language_model.chat:
            return f"{mark} {prompt}"
        texts = self.evidence([recording]) or [""]
        return mark + shared_text(texts[0]) + own_text(self.own(recording, prompt, labels))


def labels_in_prompt(labels: Sequence[str]) -> Sequence[str]:
    """Labels whose tags are included in the prompt: all of a short list, none of a longer one."""
    return labels if len(labels) <= MAX_SHOWN_LABELS else ()


def tag_score(tag: DetectedTag) -> TagScore:
    """A detected tag as a result."""
    return TagScore(tag.text, tag.group, tag.probability, strength(tag.probability), tag.spans)
