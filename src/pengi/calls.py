"""The calls of the engine: one class for each method, and the method's options.

A call object is created before a recording is read, so that invalid options are refused first. Its arguments are the
options of the engine's method; the typed dictionaries repeat them for type checkers.

Shape suffixes: T audio tokens, D features.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import repeat
from typing import Any, Generic, Literal, TypeVar, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from pengi import templates
from pengi.audio.sources import ReadingOptions, listed
from pengi.conditioning.evidence import strength
from pengi.decoding import DecodeOptions
from pengi.encoding import Encoded
from pengi.errors import InputError, checked_text, no_such
from pengi.generation import OnText, TextGenerator, Written, probability_of
from pengi.labelling import (
    METHODS,
    MIN_PRESENCE,
    LabelChooser,
    Threshold,
    check_method,
    check_top,
    checked_labels,
    checked_thresholds,
    named_tags,
    silent_classification,
    with_independent,
    with_none,
)
from pengi.model import PengiModel
from pengi.prompting import labels_in_prompt
from pengi.results import (
    NONE_OF_THESE,
    SILENCE,
    Answer,
    Classification,
    Description,
    Event,
    Explanation,
    Generation,
    ScoredText,
    Tags,
    TagScore,
)
from pengi.structured import Form
from pengi.tag_space import of_length_one, tag_probabilities

DESCRIBE = DecodeOptions(beams=3, max_tokens=40)
ANSWER = DecodeOptions(beams=1, max_tokens=30)
GENERATE = DecodeOptions(beams=5, max_tokens=30)
SILENT_CAPTION, SILENT_ANSWER = "Silence.", "The recording is silent."
MIN_EVENT_CONFIDENCE = 0.1  # of every reported event but the most probable one
MIN_TOP_EVENT_CONFIDENCE = 0.005  # of the most probable event: below it the percentage would be 0 %
MIN_TAG_PROBABILITY = 0.1  # of a tag in a recording
MAX_EVENTS = 8
LABEL_MARK = "{}"
"""Marks the position of the label in a prompt."""

Style = Literal["caption", "paper"]
STYLES: dict[Style, tuple[str, ...]] = {"caption": ("caption", "events"), "paper": ("caption", "metadata", "events")}
"""The prompts of each style of description; the last asks for events."""
Space = Literal["audio", "tags"]
SPACES: tuple[Space, ...] = ("audio", "tags")
Vector = NDArray[np.float32]
R = TypeVar("R")
E = TypeVar("E", Description, Answer, Generation, Classification)


class ExplainOptions(ReadingOptions, total=False):
    """Options of an answer that can be explained; see :class:`Call`."""

    explain: bool


class WritingOptions(ExplainOptions, total=False):
    """Options of a text that the model writes."""

    options: DecodeOptions | None
    """How to search."""
    on_text: OnText | None
    """Called with each new piece of the text while it is written; not for several recordings, several beams or JSON."""


class DescribeOptions(WritingOptions, total=False):
    """See :class:`Describe`."""

    style: Style


class AskOptions(WritingOptions, total=False):
    """See :class:`Ask`."""

    schema: str | Mapping[str, Any] | None


class EventsOptions(ReadingOptions, total=False):
    """See :class:`Events`."""

    options: DecodeOptions | None


class GenerateOptions(WritingOptions, total=False):
    """See :class:`Generate`."""

    extra_text: str | Sequence[str]


class ClassifyOptions(ExplainOptions, total=False):
    """See :class:`Classify`."""

    method: str
    prompt: str | None
    top: int | None
    none: bool | float
    multi_label: bool


class TagsOptions(ReadingOptions, total=False):
    """See :class:`DetectTags`."""

    threshold: Threshold | None
    top: int | None
    labels: Sequence[str] | None


class EmbedOptions(ReadingOptions, total=False):
    """See :class:`Embed`."""

    space: Space


class EncodeOptions(ReadingOptions, total=False):
    """Options of encoding a recording."""

    for_text: bool
    """Whether the recording is also transcribed and measured, for methods that write text or choose labels; True if not
    given."""


@dataclass(frozen=True)
class Parts:
    """The parts of an engine that calls use."""

    name: str
    """Name of the model, for error messages."""
    generator: TextGenerator
    chooser: LabelChooser

    @property
    def model(self) -> PengiModel:
        return self.generator.model

    def check_length(self, prompt: str, what: str) -> None:
        """Refuse a prompt that would be cut; ``what`` names it in the error.

        Raises:
            InputError: if the prompt is longer than the model can read.
        """
        max_tokens = self.model.config.text.max_tokens
        if self.model.text_encoder is None and len(self.model.language_model.encode(prompt)) > max_tokens:
            raise InputError(f"the {what} is too long; about {max_tokens // 2} words can be read")


class Call(Generic[R]):
    """Base of the calls.

    Args:
        parts: the parts of the engine.
        explain: whether the result says what it is based on (:class:`pengi.results.Explanation`).
        reading: how recordings are read.
    """

    for_text: bool = True
    """Whether recordings are transcribed and described as they are encoded."""
    on_text: OnText | None = None
    """See :class:`WritingOptions`."""

    def __init__(self, parts: Parts, *, explain: bool = False, **reading: Unpack[ReadingOptions]) -> None:
        self.parts, self.explain, self.reading = parts, explain, reading

    async def answer(self, encoded: Sequence[Encoded]) -> Sequence[R]:
        """One result for each recording; awaits searches only, see :func:`pengi.decoding.run`."""
        raise NotImplementedError(f"{type(self).__name__} does not implement answer")

    def silent(self, recording: Encoded) -> R | None:
        """The result for a silent recording; None if it is answered like any other."""
        return None

    def _explained(
        self,
        results: Sequence[E],
        encoded: Sequence[Encoded],
        prompts: Sequence[str | None],
        *,
        extra: Sequence[str] = (),
        labels: Sequence[str] = (),
    ) -> Sequence[E]:
        """Results with explanations if they are asked for; see :meth:`pengi.prompting.Prompting.explanation`."""
        if not self.explain:
            return results
        explanation = self.parts.generator.prompting.explanation
        return [
            replace(result, explanation=explanation(recording, prompt, extra=more, labels=labels))
            for result, recording, prompt, more in zip(
                results, encoded, prompts, extra or [""] * len(encoded), strict=True
            )
        ]

    @property
    def _silent_explanation(self) -> Explanation | None:
        """The explanation of an answer about silence."""
        return Explanation() if self.explain else None


class Describe(Call[Description]):
    """A text and the sound events; a model with a tagger takes the events from its tags.

    Args:
        parts: see :class:`Call`.
        style: of the text. "caption" is one caption; "paper" joins caption, metadata and events as the paper's authors
            do, and asks the model about silence, too.
        options: how to search.
        on_text: see :class:`WritingOptions`.
        others: see :class:`Call`.

    Raises:
        InputError: for an unknown style.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        style: Style = "caption",
        options: DecodeOptions | None = None,
        on_text: OnText | None = None,
        **others: Unpack[ExplainOptions],
    ) -> None:
        super().__init__(parts, **others)
        if style not in STYLES:
            raise InputError(no_such("style", style, STYLES))
        self._style, self._options = style, options or DESCRIBE
        self.on_text = on_text if style == "caption" else None
        self._by_tags = style == "caption" and parts.model.tagger is not None
        prompts = [templates.PROMPTS[task][0] for task in STYLES[style]]
        self._prompts = prompts[:1] if self._by_tags else prompts

    async def answer(self, encoded: Sequence[Encoded]) -> Sequence[Description]:
        count = len(self._prompts)
        rows = [recording for recording in encoded for _ in self._prompts]
        texts = await self.parts.generator.write(rows, self._prompts * len(encoded), self._options, self.on_text)
        answers = [texts[start : start + count] for start in range(0, len(texts), count)]
        found = [self._description(*pair) for pair in zip(encoded, answers, strict=True)]
        return self._explained(found, encoded, self._prompts[:1] * len(encoded))

    def _description(self, recording: Encoded, answers: Sequence[Sequence[Written]]) -> Description:
        written = [beams[0].text for beams in answers]
        text = templates.joined_description(*written) if self._style == "paper" else written[0]
        events = tagged_events(recording) if self._by_tags else written_events(answers[-1])
        return Description(text, events, recording.duration_s)

    def silent(self, recording: Encoded) -> Description | None:
        if self._style == "paper":
            return None
        return Description(SILENT_CAPTION, (Event(SILENCE, 1.0),), recording.duration_s, self._silent_explanation)


class Events(Call[tuple[Event, ...]]):
    """The sound events without a caption: the detected tags or, without a tagger, events that the language model names.

    Args:
        parts: see :class:`Call`.
        options: how to search.
        reading: see :class:`Call`.
    """

    def __init__(
        self, parts: Parts, *, options: DecodeOptions | None = None, **reading: Unpack[ReadingOptions]
    ) -> None:
        super().__init__(parts, **reading)
        self._options = options or DESCRIBE
        self.for_text = parts.model.tagger is None

    async def answer(self, encoded: Sequence[Encoded]) -> list[tuple[Event, ...]]:
        if not self.for_text:
            return [tagged_events(recording) for recording in encoded]
        prompts = [templates.PROMPTS["events"][0]] * len(encoded)
        return [written_events(texts) for texts in await self.parts.generator.write(encoded, prompts, self._options)]

    def silent(self, recording: Encoded) -> tuple[Event, ...]:
        return (Event(SILENCE, 1.0),)


class Generate(Call[Generation]):
    """What the model writes after any prompt.

    Args:
        parts: see :class:`Call`.
        count: number of recordings.
        prompts: one for all recordings, or one for each.
        extra_text: text after the prompt, which the answer continues; one for all recordings or one for each, empty for
            none.
        options: how to search.
        on_text: see :class:`WritingOptions`.
        others: see :class:`Call`.

    Raises:
        InputError: if there are not as many prompts or extra texts as recordings, or one is not a valid text.
    """

    def __init__(
        self,
        parts: Parts,
        count: int,
        prompts: str | Sequence[str],
        *,
        extra_text: str | Sequence[str] = "",
        options: DecodeOptions | None = None,
        on_text: OnText | None = None,
        **others: Unpack[ExplainOptions],
    ) -> None:
        super().__init__(parts, **others)
        self._prompts = for_each("prompts", prompts, count)
        self._extra = parts.generator.extra_texts(for_each("extra texts", extra_text, count))
        self._options, self.on_text = options or GENERATE, on_text

    async def answer(self, encoded: Sequence[Encoded]) -> Sequence[Generation]:
        prompts = [self._prompts[recording.index] for recording in encoded]
        extra = [self._extra[recording.index] for recording in encoded]
        generator = self.parts.generator
        found = await generator.generate(encoded, prompts, self._options, extra=extra, on_text=self.on_text)
        written = [Generation(prompt, generator.scored(beams)) for prompt, beams in zip(prompts, found, strict=True)]
        return self._explained(written, encoded, prompts, extra=extra)

    def silent(self, recording: Encoded) -> Generation:
        return Generation(self._prompts[recording.index], (ScoredText(SILENT_ANSWER, 0.0),), self._silent_explanation)


class Ask(Call[Answer]):
    """The answer to a question in free text.

    Args:
        parts: see :class:`Call`.
        count: number of recordings.
        question: one for all recordings, or one for each.
        options: how to search.
        on_text: see :class:`WritingOptions`.
        schema: a JSON schema, as JSON or as its values, that the text of the answer follows; see
            :class:`pengi.structured.Form`. With a schema the model is also asked about silent recordings.
        others: see :class:`Call`.

    Raises:
        InputError: for a question that is empty, longer than the model can read or not a valid text, another number of
            questions than of recordings, a schema that cannot be followed, or a schema together with ``explain``.
    """

    def __init__(
        self,
        parts: Parts,
        count: int,
        question: str | Sequence[str],
        *,
        options: DecodeOptions | None = None,
        on_text: OnText | None = None,
        schema: str | Mapping[str, Any] | None = None,
        **others: Unpack[ExplainOptions],
    ) -> None:
        super().__init__(parts, **others)
        self._questions = for_each("questions", question, count)
        if not all(asked.strip() for asked in self._questions):
            raise InputError("the question is empty")
        self._prompts = [parts.generator.prompting.question(asked) for asked in self._questions]
        for prompt in dict.fromkeys(self._prompts):
            parts.check_length(prompt, "question")
        self._options, self.on_text = options or ANSWER, on_text
        if schema is not None and self.explain:
            raise InputError("an answer that follows a JSON schema has no explanation; leave one of the two out")
        self._form = None if schema is None else Form(parts.chooser, schema)

    async def answer(self, encoded: Sequence[Encoded]) -> Sequence[Answer]:
        if self._form is not None:
            questions = [self._questions[recording.index] for recording in encoded]
            filled = await self._form.fill(encoded, questions, self._options)
            return [Answer(question, *astuple(text)) for question, text in zip(questions, filled, strict=True)]
        prompts = [self._prompts[recording.index] for recording in encoded]
        found = await self.parts.generator.generate(encoded, prompts, self._options, on_text=self.on_text)
        answers = [
            Answer(self._questions[recording.index], self.parts.generator.text(best), probability_of(best))
            for recording, (best, *_) in zip(encoded, found, strict=True)
        ]
        return self._explained(answers, encoded, prompts)

    def silent(self, recording: Encoded) -> Answer | None:
        if self._form is not None:
            return None
        return Answer(self._questions[recording.index], SILENT_ANSWER, 1.0, self._silent_explanation)


class Classify(Call[Classification]):
    """The best of custom labels. The order in which they are given does not matter.

    Args:
        parts: see :class:`Call`.
        labels: any words; repeated ones count once.
        method: how labels are scored. "likelihood": by the mean log-probability of their tokens, which a model with a
            tagger fuses with the probabilities of the tags that labels name. "generate": the model may write only
            labels. "match": the model writes freely, and the label nearest in meaning wins, as in the paper.
        prompt: text that the labels complete; "this is a sound of" if not given. It may end in ``{}``, which stands for
            the label. Labels that name tags are scored by their tags, whatever the prompt is.
        top: maximum number of labels.
        none: whether the recording may have none of the labels. True or a threshold adds the label
            :data:`pengi.results.NONE_OF_THESE`, which is the best one if no label by itself is as probable as the
            threshold (0.5 for True). Shares are then in proportion to the odds of each label by itself.
        multi_label: whether each score also has an ``independent`` probability, by which labels are then sorted.
        others: see :class:`Call`.

    Raises:
        InputError: for no labels, one that is empty or not a valid text, an unknown method, ``top`` below 1, a
            threshold that is not a probability, a prompt that is too long, and ``none`` or ``multi_label`` with another
            method than "likelihood".
    """

    def __init__(
        self,
        parts: Parts,
        labels: Sequence[str],
        *,
        method: str = METHODS[0],
        prompt: str | None = None,
        top: int | None = None,
        none: bool | float = False,
        multi_label: bool = False,
        **others: Unpack[ExplainOptions],
    ) -> None:
        super().__init__(parts, **others)
        check_method(method)
        self._none = none_threshold(none)
        if method != "likelihood" and (self._none is not None or multi_label):
            raise InputError(f"none and independent scores need the method 'likelihood', not '{method}'")
        self._labels = sorted(checked_labels(labels), key=lambda label: (label.casefold(), label))
        if self._none is not None and NONE_OF_THESE in self._labels:
            raise InputError(f"'{NONE_OF_THESE}' is added automatically; leave it out of the labels")
        check_top(top)
        self._prompt = label_prompt(prompt)
        parts.check_length(self._prompt, "prompt")
        self._method, self._top, self._multi_label = method, top, multi_label
        self._is_asked = method != "likelihood" or parts.chooser.needs_likelihood(self._labels)
        self.for_text = self._is_asked or self.explain

    async def answer(self, encoded: Sequence[Encoded]) -> Sequence[Classification]:
        prompt = self._prompt if self._is_asked else None
        chosen = await self._chosen(encoded)
        found = [replace(item, scores=item.scores[: self._top], prompt=prompt) for item in chosen]
        named = labels_in_prompt(self._labels) if self._method == "likelihood" else ()
        return self._explained(found, encoded, [prompt] * len(encoded), labels=named)

    async def _chosen(self, encoded: Sequence[Encoded]) -> list[Classification]:
        chooser = self.parts.chooser
        if self._none is None and not self._multi_label:
            return await chooser.choose(self._method, encoded, self._labels, self._prompt)
        presence_BL = chooser.presence(encoded, self._labels)
        if self._none is None:
            found = await chooser.choose(self._method, encoded, self._labels, self._prompt)
        else:
            found = [with_none(self._labels, presence_L, self._none) for presence_L in presence_BL]
        if not self._multi_label:
            return found
        return [with_independent(*pair) for pair in zip(found, repeat(self._labels), presence_BL)]

    def silent(self, recording: Encoded) -> Classification:
        labels = self._labels if self._none is None else [*self._labels, NONE_OF_THESE]
        found = silent_classification(self._method, labels, self._top, multi_label=self._multi_label)
        return replace(found, explanation=self._silent_explanation)


def none_threshold(none: bool | float) -> float | None:
    """The lowest probability at which a label counts as present; None if a recording always has one of the labels.

    Raises:
        InputError: if it is not a probability between 0 and 1.
    """
    if isinstance(none, bool):
        return MIN_PRESENCE if none else None
    if not 0 < none < 1:
        raise InputError(f"the threshold of none of the labels must be between 0 and 1, not {none:g}")
    return none


def label_prompt(prompt: str | None) -> str:
    """The text that labels complete, without the mark for the label at its end.

    Raises:
        InputError: if it is not a valid text, or the mark is elsewhere.
    """
    text = checked_text(prompt or templates.PROMPTS["events"][0], "the prompt")
    before, mark, behind = text.partition(LABEL_MARK)
    if mark and behind.strip():
        raise InputError(f"the label must come at the end of the prompt: write '{before.strip()} {LABEL_MARK}'")
    return before.rstrip() if mark else text


class DetectTags(Call[Tags]):
    """Which tags are in a recording and when; the language model is not run.

    Args:
        parts: see :class:`Call`.
        threshold: lowest probability, of all tags or of each label; 0.1 if not given, or 0 where labels are given.
        top: maximum number of tags, the likeliest ones.
        labels: detect only these tags, under the given names.
        reading: see :class:`Call`.

    Raises:
        InputError: if the model has no tagger, for a label that is not one of its tags, or for a threshold or ``top``
            out of range.
    """

    for_text = False

    def __init__(
        self,
        parts: Parts,
        *,
        threshold: Threshold | None = None,
        top: int | None = None,
        labels: Sequence[str] | None = None,
        **reading: Unpack[ReadingOptions],
    ) -> None:
        super().__init__(parts, **reading)
        if parts.model.tagger is None:
            raise InputError(f"'{parts.name}' has no tagger; describe, ask and classify work without one")
        self._vocabulary, self._every = parts.model.tagger.vocabulary, labels is None
        self._names = named_tags(parts.model.tagger, labels)
        default = MIN_TAG_PROBABILITY if labels is None else 0.0
        self._thresholds = checked_thresholds(threshold, default, self._names.values())
        check_top(top)
        self._top = top

    async def answer(self, encoded: Sequence[Encoded]) -> list[Tags]:
        return [self._tags(recording) for recording in encoded]

    def _tags(self, recording: Encoded) -> Tags:
        assert recording.probability_K is not None
        assert recording.evidence is not None
        probabilities = recording.probability_K.tolist()
        spans = {found.text: found.spans for found in recording.evidence.tags}
        likely = []
        for index, label in self._names.items():
            probability, tag = probabilities[index], self._vocabulary.tags[index]
            if probability >= self._thresholds[label]:
                likely.append(TagScore(label, tag.group, probability, strength(probability), spans.get(tag.text, ())))
        likely.sort(key=lambda tag: -tag.probability)
        return Tags(tuple(likely[: self._top]), recording.duration_s)

    def silent(self, recording: Encoded) -> Tags | None:
        if not self._every:
            return None
        full_span = ((0.0, recording.duration_s),)
        return Tags((TagScore(SILENCE, "sound", 1.0, strength(1.0), full_span),), recording.duration_s)


class Embed(Call[Vector]):
    """One vector ``float32[D]`` of length 1 for a recording.

    Args:
        parts: see :class:`Call`.
        space: "audio" for comparing recordings: the mean audio token of every branch, each of length 1, concatenated.
            "tags" for comparing recordings and texts of :meth:`pengi.engine.Pengi.embed_text`: the probabilities of the
            model's tags.
        reading: see :class:`Call`.

    Raises:
        InputError: for an unknown space, or "tags" of a model without a tagger.
    """

    for_text = False

    def __init__(self, parts: Parts, *, space: Space = "audio", **reading: Unpack[ReadingOptions]) -> None:
        super().__init__(parts, **reading)
        if space not in SPACES:
            raise InputError(no_such("space", space, SPACES))
        self._tags = None if space == "audio" else tag_names(parts)

    async def answer(self, encoded: Sequence[Encoded]) -> list[Vector]:
        if self._tags is not None:
            return [of_length_one(tag_probabilities(recording, self._tags)) for recording in encoded]
        return [self._vector(recording) for recording in encoded]

    def _vector(self, recording: Encoded) -> Vector:
        parts = [torch.nn.functional.normalize(tokens_TD.mean(0), dim=0) for tokens_TD in recording.tokens]
        vector_D: Vector = (torch.cat(parts) / math.sqrt(len(parts))).cpu().numpy()
        return vector_D


def tag_names(parts: Parts) -> tuple[str, ...]:
    """The tags of a model; the features of the space "tags".

    Raises:
        InputError: if it has no tagger.
    """
    tagger = parts.model.tagger
    if tagger is None:
        raise InputError(f"'{parts.name}' has no tagger, so there is no space of tags to embed in")
    return tuple(tag.text for tag in tagger.vocabulary.tags)


def for_each(what: str, given: str | Sequence[str], count: int) -> list[str]:
    """One string for each of ``count`` recordings; ``what`` names the strings in errors, in the plural.

    Raises:
        InputError: if their number is not ``count``, or one is not a valid text.
    """
    texts = listed(given)
    if texts is None:
        return [checked_text(given, f"the {what.removesuffix('s')}")] * count
    if len(texts) != count:
        raise InputError(f"{len(texts)} {what} were given for {count} recordings; give one for all or one for each")
    return [checked_text(text, f"each of the {what}") for text in texts]


def tagged_events(recording: Encoded) -> tuple[Event, ...]:
    """The likeliest tags as events, at most :data:`MAX_EVENTS`."""
    assert recording.evidence is not None
    likely = [tag for tag in recording.evidence.tags if tag.probability >= MIN_EVENT_CONFIDENCE]
    return tuple(Event(tag.text, tag.probability) for tag in likely[:MAX_EVENTS])


def written_events(texts: Sequence[Written]) -> tuple[Event, ...]:
    """Events that texts name. The probability of an event is the sum over the texts that name it.

    "french horn" and "French horn" are one event, in the more probable spelling.
    """
    spellings: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for written in texts:
        named: dict[str, str] = {}
        for label in templates.split_events(written.text):
            named.setdefault(label.casefold(), label)
        for name, label in named.items():
            spellings[name][label] += written.probability
    probability = {max(forms, key=lambda form: forms[form]): sum(forms.values()) for forms in spellings.values()}
    ranked = sorted(probability.items(), key=lambda item: -item[1])
    thresholds = [MIN_TOP_EVENT_CONFIDENCE, *[MIN_EVENT_CONFIDENCE] * len(ranked)]
    return tuple(
        Event(label, min(1.0, value))
        for (label, value), threshold in zip(ranked, thresholds, strict=False)
        if value >= threshold
    )
