"""Choosing among labels: their checks, and how scores of tags and of the language model become shares.

Shape suffixes: B recordings, P prefix embeddings, D features, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pengi import weights
from pengi.conditioning.tagger import Tagger
from pengi.decoding import DecodeOptions, LabelTrie, score_labels_from
from pengi.encoding import Encoded
from pengi.errors import InputError, checked_text
from pengi.generation import TextGenerator
from pengi.prompting import shown
from pengi.results import Classification, LabelScore
from pengi.text_encoder import SentenceEncoder, TextEncoder

METHODS = ("likelihood", "generate", "match")
CONSTRAINED = DecodeOptions(beams=5, max_tokens=30)
MATCH = DecodeOptions(beams=4, max_tokens=40)
MATCH_SHARPNESS = 20.0  # cosine similarities to shares: exp(20 * cosine)
SILENT_LABELS = ("silence", "silent")  # labels that are right for a silent recording
_CERTAIN = 0.95
"""Bound of the tagger's say in whether any label that names a tag is right."""


def checked_labels(labels: Sequence[str]) -> list[str]:
    """The labels without spaces around them, each once.

    Raises:
        InputError: if there are none, or one is empty or no text.
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
    """Raise an InputError for a number of results that makes no sense."""
    if top is not None and top < 1:
        raise InputError(f"top must be at least 1, not {top}")


def checked_threshold(threshold: float | None, default: float) -> float:
    """A lowest probability; the default if none is given.

    Raises:
        InputError: if it is no probability.
    """
    if threshold is None:
        return default
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold must be a probability from 0 to 1, not {threshold:g}")
    return threshold


def named_tags(tagger: Tagger, labels: Sequence[str] | None) -> dict[int, str]:
    """Index of each tag that labels name, or of every tag -> what it is called.

    Raises:
        InputError: for a label that is none of the tags, and as :func:`checked_labels`.
    """
    vocabulary = tagger.vocabulary
    if labels is None:
        return {index: tag.text for index, tag in enumerate(vocabulary.tags)}
    names = checked_labels(labels)
    found: dict[int, str] = {}
    for name, index in zip(names, vocabulary.label_indices(names), strict=True):
        if index is None:
            near = vocabulary.nearest(name)
            hint = f"the nearest are {', '.join(map(repr, near))}; " if near else ""
            raise InputError(f"there is no tag '{name}'; {hint}classify takes any label")
        found.setdefault(index, name)
    return found


def silent_classification(method: str, labels: Sequence[str], top: int | None) -> Classification:
    """Probability 1 for the label that means silence; without such a label no label is detected."""
    right = next((label for label in labels if label.casefold().strip(" .") in SILENT_LABELS), None)
    ordered = sorted(labels, key=lambda label: label != right)
    scores = tuple(LabelScore(label, float(label == right)) for label in ordered[:top])
    return Classification(method, scores, detected=right is not None)


def ranked(method: str, labels: Sequence[str], scores_L: Tensor) -> Classification:
    """Labels by score, the best first; equal ones stay in the order in which they were given."""
    share_L = scores_L.float().softmax(0)
    order = scores_L.argsort(descending=True, stable=True).tolist()
    return Classification(method, tuple(LabelScore(labels[index], float(share_L[index])) for index in order))


def fused(log_odds_L: Tensor, likelihood_L: Tensor) -> Tensor:
    """Scores of labels by tags and by the language model, ``float32[L]``; their softmax are shares.

    Labels that name tags are compared by the log-odds of their tags, the others by likelihood. Where there are both,
    the others together get the share that the language model gives them, the more the less sure the tagger is of any of
    its tags.

    Args:
        log_odds_L: of each label's tag, NaN of a label that names none.
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
        self._generator, self._model = generator, generator.model

    def choose(self, method: str, encoded: Sequence[Encoded], labels: list[str], prompt: str) -> list[Classification]:
        """The labels of each recording, the best first."""
        by: dict[str, Callable[[Sequence[Encoded], list[str], str], list[Classification]]] = {
            "likelihood": self._by_likelihood,
            "generate": self._by_trie,
            "match": self._by_match,
        }
        return by[method](encoded, labels, prompt)

    def _label_ids(self, labels: Sequence[str]) -> list[list[int]]:
        return [self._model.target_ids(label)[:-1] for label in labels]

    def _label_tags(self, labels: Sequence[str]) -> list[int | None]:
        """Index of the tag that each label names; None of those that name none."""
        tagger = self._model.tagger
        return [None] * len(labels) if tagger is None else tagger.vocabulary.label_indices(labels)

    def needs_likelihood(self, labels: Sequence[str]) -> bool:
        """Whether the language model has a say in the choice among labels."""
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
        own = [self._generator.prompting.own(recording, prompt, shown(labels)) for recording in encoded]
        logits_BV, state = self._generator.read(encoded, own)
        lm = self._model.language_model
        return score_labels_from(lm, logits_BV, state, self._label_ids(labels), end_id=lm.end_id).mean_BL

    def _by_trie(self, encoded: Sequence[Encoded], labels: list[str], prompt: str) -> list[Classification]:
        trie = LabelTrie(self._label_ids(labels), self._model.language_model.end_id)
        options = replace(CONSTRAINED, beams=min(CONSTRAINED.beams, len(labels)))
        found = []
        for hypotheses in self._generator.generate(encoded, [prompt] * len(encoded), options, trie):
            total_L = torch.full((len(labels),), -math.inf)
            for hypothesis in hypotheses:
                total_L[trie.index(hypothesis.tokens)] = sum(hypothesis.log_probs)
            found.append(ranked("generate", labels, total_L))
        return found

    def _by_match(self, encoded: Sequence[Encoded], labels: list[str], prompt: str) -> list[Classification]:
        texts = [best[0].text for best in self._generator.write(encoded, [prompt] * len(encoded), MATCH)]
        text_BD, label_LD = (normalize(self._matcher.embed(words)) for words in (texts, labels))
        cosine_BL = text_BD @ label_LD.T
        return [
            replace(ranked("match", labels, MATCH_SHARPNESS * row), text=text)
            for text, row in zip(texts, cosine_BL, strict=True)
        ]

    @cached_property
    def _matcher(self) -> TextEncoder:
        if self._model.text_encoder is not None:
            return self._model.text_encoder
        return SentenceEncoder.from_folder(weights.resolve("all-minilm-l6-v2")).to(self._model.device)
