"""Choosing among labels: their checks, and how scores of tags and of the language model become shares.

Shape suffixes: B recordings, P prefix embeddings, D features, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pengi import weights
from pengi.conditioning.tagger import Tagger
from pengi.decoding import DecodeOptions, LabelTrie, score_labels
from pengi.encoding import Encoded
from pengi.errors import InputError, checked_text, no_such
from pengi.generation import TextGenerator
from pengi.prompting import labels_in_prompt
from pengi.results import NONE_OF_THESE, Classification, LabelScore
from pengi.templates import NO, YES, is_there
from pengi.text_encoder import SHARPNESS, SentenceEncoder, TextEncoder

METHODS = ("likelihood", "generate", "match")
CONSTRAINED = DecodeOptions(beams=5, max_tokens=30)
MATCH = DecodeOptions(beams=4, max_tokens=40)
SILENT_LABELS = ("silence", "silent")  # labels that are right for a silent recording
_CERTAIN = 0.95
"""Upper limit of the tagger's probability where labels that are not tags compete, so that they keep a share."""
_SMALLEST = 1e-6
"""Probabilities are clamped to at least this distance from 0 and 1 before their odds are compared."""
MIN_PRESENCE = 0.5
"""Minimum probability of a label that counts as present."""
_ROWS = 16
"""Questions that the language model reads at once."""
OTHERS = "*"
"""The key of the threshold for all labels that are not named."""
Threshold = float | Mapping[str, float]
"""A minimum probability for all labels, or one for each; :data:`OTHERS` is the key for labels that are not named."""


def checked_labels(labels: Sequence[str]) -> list[str]:
    """The labels without spaces around them, each once.

    Raises:
        InputError: if there are none, or one is empty or not a text.
    """
    if isinstance(labels, str):
        raise InputError("labels must be a list of strings, not one string")
    if not isinstance(labels, Iterable):
        raise InputError(f"labels must be a list of strings, not {type(labels).__name__}")
    names = list(dict.fromkeys(checked_text(label, "each label").strip() for label in labels))
    if not names or not all(names):
        raise InputError("give at least one label, and no empty ones")
    return names


def check_method(method: str) -> None:
    """Raise an InputError for an unknown method."""
    if method not in METHODS:
        raise InputError(f"unknown method '{method}'; choose one of {', '.join(METHODS)}")


def check_top(top: int | None) -> None:
    """Raise an InputError if the maximum number of results is below 1."""
    if top is not None and top < 1:
        raise InputError(f"top must be at least 1, not {top}")


def checked_thresholds(
    threshold: Threshold | None, default: float, labels: Iterable[str], by_label: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The threshold of each label: the one that is given for it, else its default in ``by_label``, else ``default``.

    Raises:
        InputError: if one is not a probability, or is given for something that is not one of the labels.
    """
    given = threshold if isinstance(threshold, Mapping) else {} if threshold is None else {OTHERS: threshold}
    for value in given.values():
        if not 0 <= value <= 1:
            raise InputError(f"threshold must be a probability from 0 to 1, not {value:g}")
    found = {label: given.get(OTHERS, (by_label or {}).get(label, default)) for label in labels}
    for name, value in given.items():
        if name not in (OTHERS, *found):
            raise InputError(f"a threshold is given for '{name}', but {no_such('label', name, found)}")
        if name != OTHERS:
            found[name] = value
    return found


def tags_and_others(tagger: Tagger | None, labels: Sequence[str]) -> tuple[dict[int, str], list[str]]:
    """Index of each tag that a label names -> that label; and the labels that name no tag.

    Raises:
        InputError: as :func:`checked_labels`.
    """
    names = checked_labels(labels)
    indices = [None] * len(names) if tagger is None else tagger.vocabulary.label_indices(names)
    found: dict[int, str] = {}
    for name, index in zip(names, indices, strict=True):
        if index is not None:
            found.setdefault(index, name)
    return found, [name for name, index in zip(names, indices, strict=True) if index is None]


def named_tags(tagger: Tagger, labels: Sequence[str] | None) -> dict[int, str]:
    """Index of each tag that a label names -> that label; without labels, index of every tag -> its text.

    Raises:
        InputError: for a label that is not one of the tags, and as :func:`checked_labels`.
    """
    if labels is None:
        return {index: tag.text for index, tag in enumerate(tagger.vocabulary.tags)}
    found, others = tags_and_others(tagger, labels)
    if others:
        raise InputError(f"{no_tag(tagger, others[0])}; classify and timeline take any label")
    return found


def no_tag(tagger: Tagger, label: str) -> str:
    """The error message for a label that is not one of the tags, with the nearest tags."""
    near = tagger.vocabulary.nearest(label)
    return f"there is no tag '{label}'" + (f"; the nearest are {', '.join(map(repr, near))}" if near else "")


def silent_label(labels: Iterable[str]) -> str | None:
    """The first label that means silence; None if there is none."""
    return next((label for label in labels if label.casefold().strip(" .") in SILENT_LABELS), None)


def silent_classification(
    method: str, labels: Sequence[str], top: int | None, *, multi_label: bool = False
) -> Classification:
    """Probability 1 for the label that means silence, else for "none of these"; without either, nothing is detected."""
    right = silent_label(labels)
    if right is None and NONE_OF_THESE in labels:
        right = NONE_OF_THESE
    ordered = sorted(labels, key=lambda label: label != right)
    scores = [LabelScore(label, float(label == right)) for label in ordered[:top]]
    if multi_label:
        scores = [replace(s, independent=None if s.label == NONE_OF_THESE else s.probability) for s in scores]
    return Classification(method, tuple(scores), detected=right is not None)


def ranked(method: str, labels: Sequence[str], scores_L: Tensor) -> Classification:
    """Labels by score, the best first; labels with equal scores keep their order."""
    share_L = scores_L.float().softmax(0)
    order = scores_L.argsort(descending=True, stable=True).tolist()
    return Classification(method, tuple(LabelScore(labels[index], float(share_L[index])) for index in order))


def with_none(labels: Sequence[str], presence_L: Tensor, threshold: float) -> Classification:
    """Shares of labels and of "none of these".

    The share of a label is in proportion to the odds that it is present; that of "none of these" is in proportion to
    the odds of the threshold. So "none of these" is the best if no label is as probable as the threshold.
    """
    probability_L = torch.cat([presence_L, torch.tensor([threshold])])
    return ranked("likelihood", [*labels, NONE_OF_THESE], probability_L.double().logit(_SMALLEST))


def with_independent(found: Classification, labels: Sequence[str], presence_L: Tensor) -> Classification:
    """Shares with the probability of each label by itself; the most probable label first."""
    independent = dict(zip(labels, presence_L.tolist(), strict=True))
    scores = [replace(score, independent=independent.get(score.label)) for score in found.scores]
    none = [score for score in scores if score.independent is None]
    known = sorted((score for score in scores if score not in none), key=lambda score: -(score.independent or 0.0))
    return replace(found, scores=tuple([*none, *known] if found.label == NONE_OF_THESE else [*known, *none]))


def fused(log_odds_L: Tensor, likelihood_L: Tensor) -> Tensor:
    """Scores of labels by tags and by the language model, ``float32[L]``; softmax turns them into shares.

    Labels that name tags are compared by the log-odds of their tags, the others by likelihood. If there are both, the
    language model divides the probability between the two groups, and the log-odds of the likeliest tag are added in
    favour of the tags.

    Args:
        log_odds_L: of each label's tag; NaN for a label that names none.
        likelihood_L: mean log-likelihood of each label.
    """
    known_L = ~log_odds_L.isnan()
    if not known_L.any():
        return likelihood_L
    if known_L.all():
        return log_odds_L
    highest = log_odds_L[known_L].amax().sigmoid().clamp(1 - _CERTAIN, _CERTAIN)
    named, others = likelihood_L[known_L].logsumexp(0), likelihood_L[~known_L].logsumexp(0)
    balance = named - others + highest.logit()
    shares_L = torch.empty_like(log_odds_L)
    shares_L[known_L] = log_odds_L[known_L].log_softmax(0) + torch.nn.functional.logsigmoid(balance)
    shares_L[~known_L] = likelihood_L[~known_L].log_softmax(0) + torch.nn.functional.logsigmoid(-balance)
    return shares_L


class LabelChooser:
    """Chooses among labels by any of the methods.

    Args:
        generator: writes texts; its model scores labels.
    """

    def __init__(self, generator: TextGenerator) -> None:
        self.generator, self._model = generator, generator.model

    async def choose(
        self, method: str, encoded: Sequence[Encoded], labels: list[str], prompt: str
    ) -> list[Classification]:
        """The labels of each recording, the best first."""
        if method == "generate":
            return await self._by_trie(encoded, labels, prompt)
        if method == "match":
            return await self._by_match(encoded, labels, prompt)
        return self._by_likelihood(encoded, labels, prompt)

    def presence(self, encoded: Sequence[Encoded], labels: Sequence[str]) -> Tensor:
        """Probability that each label is present, independent of the other labels, ``float32[B, L]`` on the CPU.

        For a label that names a tag it is the tag's probability. For another label the language model is asked whether
        it is present, and "yes" is compared with "no".
        """
        tags = self._label_tags(labels)
        found_BL = torch.zeros(len(encoded), len(labels))
        asked = [(row, column) for row in range(len(encoded)) for column, tag in enumerate(tags) if tag is None]
        for start in range(0, len(asked), _ROWS):
            part = asked[start : start + _ROWS]
            values = self._yes([encoded[row] for row, _ in part], [labels[column] for _, column in part])
            for (row, column), value in zip(part, values.tolist(), strict=True):
                found_BL[row, column] = value
        for row, recording in enumerate(encoded):
            for column, tag in enumerate(tags):
                if tag is not None:
                    assert recording.probability_K is not None
                    found_BL[row, column] = recording.probability_K[tag]
        return found_BL

    @torch.inference_mode()
    def _yes(self, encoded: Sequence[Encoded], labels: Sequence[str]) -> Tensor:
        """Probability ``float32[B]`` of "yes", against "no", to the question whether a recording has a label."""
        prompting, lm = self.generator.prompting, self._model.language_model
        questions = [prompting.question(is_there(label)) for label in labels]
        full_prompts = [prompting.own(*pair) for pair in zip(encoded, questions, strict=True)]
        logits_BV, state = self.generator.read_shared(encoded, full_prompts)
        total_BL = score_labels(lm, logits_BV, state, self._label_ids((YES, NO))).total_BL
        return total_BL.float().softmax(1)[:, 0].cpu()

    def _label_ids(self, labels: Sequence[str]) -> list[list[int]]:
        return [self._model.target_ids(label)[:-1] for label in labels]

    def _label_tags(self, labels: Sequence[str]) -> list[int | None]:
        """Index of the tag that each label names; None for a label that names none."""
        tagger = self._model.tagger
        return [None] * len(labels) if tagger is None else tagger.vocabulary.label_indices(labels)

    def needs_likelihood(self, labels: Sequence[str]) -> bool:
        """Whether the language model is needed to choose among labels."""
        return None in self._label_tags(labels)

    def _by_likelihood(self, encoded: Sequence[Encoded], labels: list[str], prompt: str) -> list[Classification]:
        asks = self.needs_likelihood(labels)
        mean_BL = self._likelihood(encoded, labels, prompt) if asks else torch.zeros(len(encoded), len(labels))
        tags = self._label_tags(labels)
        found = []
        for recording, mean_L in zip(encoded, mean_BL.float().cpu(), strict=True):
            log_odds = [math.nan if index is None else self._log_odds(recording, index) for index in tags]
            found.append(ranked("likelihood", labels, fused(torch.tensor(log_odds), mean_L)))
        return found

    def _log_odds(self, recording: Encoded, index: int) -> float:
        assert recording.log_odds_K is not None
        return float(recording.log_odds_K[index])

    def _likelihood(self, encoded: Sequence[Encoded], labels: list[str], prompt: str) -> Tensor:
        full_prompts = [
            self.generator.prompting.own(recording, prompt, labels_in_prompt(labels)) for recording in encoded
        ]
        logits_BV, state = self.generator.read(encoded, full_prompts)
        lm = self._model.language_model
        return score_labels(lm, logits_BV, state, self._label_ids(labels), end_id=lm.end_id).mean_BL

    async def _by_trie(self, encoded: Sequence[Encoded], labels: list[str], prompt: str) -> list[Classification]:
        trie = LabelTrie(self._label_ids(labels), self._model.language_model.end_id)
        options = replace(CONSTRAINED, beams=min(CONSTRAINED.beams, len(labels)))
        found = []
        for hypotheses in await self.generator.generate(encoded, [prompt] * len(encoded), options, trie):
            total_L = torch.full((len(labels),), -math.inf)
            for hypothesis in hypotheses:
                total_L[trie.index(hypothesis.tokens)] = sum(hypothesis.log_probs)
            found.append(ranked("generate", labels, total_L))
        return found

    async def _by_match(self, encoded: Sequence[Encoded], labels: list[str], prompt: str) -> list[Classification]:
        texts = [best[0].text for best in await self.generator.write(encoded, [prompt] * len(encoded), MATCH)]
        text_BD, label_LD = (normalize(self._matcher.embed(words)) for words in (texts, labels))
        cosine_BL = text_BD @ label_LD.T
        return [
            replace(ranked("match", labels, SHARPNESS * row), text=text)
            for text, row in zip(texts, cosine_BL, strict=True)
        ]

    @cached_property
    def _matcher(self) -> TextEncoder:
        if self._model.text_encoder is not None:
            return self._model.text_encoder
        return SentenceEncoder.from_folder(weights.resolve("all-minilm-l6-v2")).to(self._model.device)
