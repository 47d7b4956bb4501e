"""Choosing among labels: their checks, and how scores of tags and of the language model become shares.

Shape suffixes: L labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from pengi.errors import InputError, checked_text
from pengi.results import Classification, LabelScore

METHODS = ("likelihood", "sum", "generate", "match")
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


def fused(log_odds_L: Tensor, likelihood_L: Tensor, weight: float) -> Tensor:
    """Scores of labels by tags and by the language model, ``float32[L]``; their softmax are shares.

    Labels that name tags are compared by the log-odds of their tags plus ``weight`` times their likelihood. The others
    are compared by likelihood. Where there are both, the others together get the share that the language model gives
    them, the more the less sure the tagger is of any of its tags.

    Args:
        log_odds_L: of each label's tag, NaN of a label that names none.
        likelihood_L: mean log-likelihood of each label.
        weight: see above.
    """
    known_L = ~log_odds_L.isnan()
    if not known_L.any():
        return likelihood_L
    score_L = log_odds_L + weight * likelihood_L
    if known_L.all():
        return score_L
    highest = log_odds_L[known_L].amax().sigmoid().clamp(1 - _CERTAIN, _CERTAIN)
    named, others = likelihood_L[known_L].logsumexp(0), likelihood_L[~known_L].logsumexp(0)
    balance = named - others + highest.logit()
    shares_L = torch.empty_like(score_L)
    shares_L[known_L] = score_L[known_L].log_softmax(0) + torch.nn.functional.logsigmoid(balance)
    shares_L[~known_L] = likelihood_L[~known_L].log_softmax(0) + torch.nn.functional.logsigmoid(-balance)
    return shares_L
