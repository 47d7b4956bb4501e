"""Scores written predictions: computes metrics with intervals, without a model or audio.

Shape suffixes: N items, L labels, M captions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pengi.errors import InputError
from pengi.evaluation import captioning, patterns, retrieving
from pengi.evaluation.benchmarks import YES_NO, Benchmark
from pengi.evaluation.items import Item
from pengi.evaluation.statistics import Indices, Metric, bootstrap, mean_of, share_right
from pengi.evaluation.systems import embed_texts
from pengi.json_lines import Row

SLOW_RESAMPLES = 200
"""Number of resamples for metrics over all items at once, which are slow to compute."""
BINS = 10
MAX_CONFUSION_LABELS = 60
_WORST = -1e9  # score of every label if a recording could not be used
_SHARES = ("likelihood", "generate")

Json = dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """The answers of a system, item by item.

    Attributes:
        credit_N: score of each answer, 0 to 1; None for captions, which are scored as a whole.
        predictions: the chosen label or written text; None if there is no answer.
        scores_NL: label scores; None for texts, or if items have different labels.
    """

    items: tuple[Item, ...]
    rows: tuple[Row, ...]
    predictions: tuple[str | None, ...]
    credit_N: NDArray[np.float64] | None
    scores_NL: NDArray[np.float64] | None

    @property
    def groups(self) -> list[str]:
        return [item.group for item in self.items]


def read_answers(benchmark: Benchmark, items: Sequence[Item], rows: Mapping[str, Row], mode: str) -> Scored:
    """Match lines to items; items without a line are left out, and those with an error count as wrong.

    Raises:
        InputError: if there are no lines at all.
    """
    answered = tuple(item for item in items if item.id in rows)
    if not answered:
        raise InputError(f"there are no predictions of {benchmark.name} in mode {mode}")
    lines = tuple(rows[item.id] for item in answered)
    said: tuple[str | None, ...] = tuple(line.get("text") for line in lines)
    credit_N: NDArray[np.float64] | None = None
    scores_NL: NDArray[np.float64] | None = None
    if benchmark.kind == "open":
        right = [patterns.is_accepted(text, item.accepted) for text, item in zip(said, answered, strict=True)]
        credit_N = np.array(right, dtype=np.float64)
    elif mode == "write":
        if benchmark.kind != "caption":
            credit_N = _credits(benchmark, answered, [_normal(text) for text in said], _normal)
    else:
        if mode == "exact":
            said = tuple(_exact(text, item.labels) for item, text in zip(answered, said, strict=True))
        else:
            said, scores_NL = _choices(answered, lines)
        credit_N = _credits(benchmark, answered, said)
    return Scored(answered, lines, said, credit_N, scores_NL)


def score(benchmark: Benchmark, scored: Scored, mode: str) -> Json:
    """Every metric of a benchmark with its interval, and further details for the report, as JSON values."""
    errors = sum("error" in row for row in scored.rows)
    result: Json = {"n": len(scored.items), "errors": errors}
    result["seconds"] = round(sum(row.get("seconds", 0.0) for row in scored.rows), 2)
    if benchmark.kind == "caption":
        metrics, tokens = _caption_metrics(scored)
        return result | {"metrics": metrics, "tokens": tokens}
    if benchmark.kind == "tag":
        return result | {"metrics": {"map": bootstrap(map_metric(scored), scored.groups, SLOW_RESAMPLES).to_json()}}
    assert scored.credit_N is not None
    result["metrics"] = {"accuracy": share_right(scored.credit_N, scored.groups).to_json()}
    if benchmark.kind == "open":
        result["metrics"] |= _refusals(scored)
        return result | {"families": _families(scored)}
    if mode == "write":
        result["metrics"]["similarity"] = bootstrap(_similarity_metric(scored), scored.groups).to_json()
        return result
    if benchmark.kind == "classify":
        result["metrics"]["macro_f1"] = bootstrap(f1_metric(scored), scored.groups).to_json()
        result |= _by_class(scored)
    if mode in _SHARES and scored.scores_NL is not None:
        result["reliability"] = reliability(scored.scores_NL, scored.credit_N)
    return result


def headline_metric(benchmark: Benchmark, scored: Scored) -> Metric:
    """The benchmark's first metric as a function of items, for comparing two runs."""
    if benchmark.kind == "tag":
        return map_metric(scored)
    if benchmark.kind == "caption":
        return _similarity_metric(scored)
    assert scored.credit_N is not None
    return mean_of(scored.credit_N)


def chance(benchmark: Benchmark, items: Sequence[Item]) -> Json:
    """The expected metrics of labels drawn at random; empty if items have no labels."""
    if not items or not all(item.labels for item in items):
        return {}
    if benchmark.kind == "tag":
        shares = [sum(label in item.answers for item in items) / len(items) for label in items[0].labels]
        return {"map": {"value": float(np.mean([share for share in shares if share]))}}
    if benchmark.kind == "question":
        return {"accuracy": {"value": float(np.mean([1 / len(item.labels) for item in items]))}}
    values = [len(set(item.answers) & set(item.labels)) / len(item.labels) for item in items]
    return {"accuracy": {"value": float(np.mean(values))}}


def map_metric(scored: Scored) -> Metric:
    """Mean average precision (scikit-learn's) over the labels that at least one item has."""
    from sklearn.metrics import average_precision_score

    assert scored.scores_NL is not None
    labels = scored.items[0].labels
    true_NL = np.array([[label in item.answers for label in labels] for item in scored.items])
    scores_NL = scored.scores_NL

    def metric(indices: Indices) -> float:
        present = np.flatnonzero(true_NL[indices].any(0))
        if not len(present):
            return math.nan
        return float(average_precision_score(true_NL[indices][:, present], scores_NL[indices][:, present]))

    return metric


def f1_metric(scored: Scored) -> Metric:
    """Macro F1 over the labels that items have; an item with several labels counts under the predicted one.

    The value equals scikit-learn's. It is computed from counts, because thousands of resamples are scored. In a
    resample only the labels that occur in it count.
    """
    truth, chosen = _single(scored)
    present = {label: code for code, label in enumerate(sorted(set(truth)))}
    truth_N = np.array([present[label] for label in truth])
    chosen_N = np.array([present.get(label, len(present)) for label in chosen])

    def metric(indices: Indices) -> float:
        size = len(present) + 1
        true_L, said_L = (np.bincount(codes[indices], minlength=size)[:-1] for codes in (truth_N, chosen_N))
        both = truth_N[indices][truth_N[indices] == chosen_N[indices]]
        hit_L = np.bincount(both, minlength=size)[:-1]
        there = true_L > 0
        return float((2 * hit_L[there] / (true_L + said_L)[there]).mean())

    return metric


def reliability(scores_NL: NDArray[np.float64], credit_N: NDArray[np.float64]) -> Json:
    """How often the chosen label is right, by the model's confidence, and the expected calibration error.

    The confidence is the chosen label's share among the labels; the error is the mean distance between confidence and
    accuracy over ten bins of equal width, weighted by their number of items (Guo et al. 2017).
    """
    shares_NL = np.exp(scores_NL - scores_NL.max(1, keepdims=True))
    confidence_N = (shares_NL / shares_NL.sum(1, keepdims=True)).max(1)
    bin_N = np.minimum((confidence_N * BINS).astype(int), BINS - 1)
    bins = []
    for number in range(BINS):
        inside = bin_N == number
        if inside.any():
            bins.append(
                {
                    "n": int(inside.sum()),
                    "confidence": float(confidence_N[inside].mean()),
                    "accuracy": float(credit_N[inside].mean()),
                }
            )
    error = sum(part["n"] * abs(part["confidence"] - part["accuracy"]) for part in bins) / len(credit_N)
    return {"bins": bins, "ece": float(error)}


def _choices(items: Sequence[Item], lines: Sequence[Row]) -> tuple[tuple[str | None, ...], NDArray[np.float64] | None]:
    """The label with the highest score of each item, and all label scores (None if items have different labels)."""
    scores = [np.array(line["scores"], dtype=np.float64) if "scores" in line else None for line in lines]
    chosen = tuple(
        None if found is None else item.labels[int(np.argmax(found))] for item, found in zip(items, scores, strict=True)
    )
    if len({item.labels for item in items}) > 1:
        return chosen, None
    no_scores_L = np.full(len(items[0].labels), _WORST)
    return chosen, np.stack([no_scores_L if found is None else found for found in scores])


def _credits(
    benchmark: Benchmark,
    items: Sequence[Item],
    said: Sequence[str | None],
    normal: Callable[[str | None], str | None] = lambda text: text,
) -> NDArray[np.float64]:
    """1 for a right answer; if several people answered a question, the share of them who gave the same answer."""
    credits = []
    for item, answer in zip(items, said, strict=True):
        same = [normal(right) == answer for right in item.answers]
        several = benchmark.kind == "question"
        credits.append(0.0 if answer is None else float(np.mean(same)) if several else float(any(same)))
    return np.array(credits)


def _normal(text: str | None) -> str | None:
    """Words only, in lower case: "Twelve ounce." becomes "twelve ounce"."""
    return None if text is None else " ".join(re.findall(r"[\w']+", text.lower()))


def _exact(text: str | None, labels: Sequence[str]) -> str | None:
    """The label that equals a text; if the labels are yes and no, the first word of the text. None if there is none."""
    said = _normal(text)
    if said and tuple(labels) == YES_NO:
        said = said.split()[0]
    return next((label for label in labels if _normal(label) == said), None)


def _single(scored: Scored) -> tuple[list[str], list[str]]:
    """One true and one chosen label for each item; "(none)" if there is no answer."""
    pairs = zip(scored.items, scored.predictions, strict=True)
    truth = [said if said in item.answers else item.answers[0] for item, said in pairs]
    return [str(label) for label in truth], [said or "(none)" for said in scored.predictions]


def _by_class(scored: Scored) -> Json:
    """Recall of each label that an item has, the mean recall, and the confusion matrix.

    An item with several labels counts under each of them, and as right under each if any was chosen.
    """
    assert scored.credit_N is not None
    recalls: Json = {}
    for label in scored.items[0].labels:
        credit = [scored.credit_N[index] for index, item in enumerate(scored.items) if label in item.answers]
        if credit:
            recalls[label] = {"n": len(credit), "correct": int(sum(credit)), "accuracy": float(np.mean(credit))}
    result: Json = {
        "mean_recall": float(np.mean([found["accuracy"] for found in recalls.values()])),
        "per_class": recalls,
    }
    truth, chosen = _single(scored)
    labels = sorted(set(truth) | set(chosen))
    if 1 < len(labels) <= MAX_CONFUSION_LABELS:
        codes = {label: code for code, label in enumerate(labels)}
        counts_LL = np.zeros((len(labels), len(labels)), dtype=int)
        np.add.at(counts_LL, ([codes[label] for label in truth], [codes[label] for label in chosen]), 1)
        result["confusion"] = {"labels": labels, "counts": counts_LL.tolist()}
    return result


def _refusals(scored: Scored) -> Json:
    """The share of refused questions, among those whose right answer is a refusal and among all others."""
    metrics: Json = {}
    for name, refusable in (("refused_off_topic", True), ("refused_answerable", False)):
        pairs = [
            (float(patterns.is_refusal(text)), item.group)
            for text, item in zip(scored.predictions, scored.items, strict=True)
            if (item.accepted == (patterns.REFUSAL,)) == refusable
        ]
        if pairs:
            metrics[name] = share_right([refused for refused, _ in pairs], [group for _, group in pairs]).to_json()
    return metrics


def _families(scored: Scored) -> Json:
    """Accuracy by family, in the order of their first items."""
    assert scored.credit_N is not None
    families: Json = {}
    for family in dict.fromkeys(item.family for item in scored.items):
        indices = [index for index, item in enumerate(scored.items) if item.family == family]
        found = share_right(scored.credit_N[indices], [scored.items[index].group for index in indices])
        families[family] = {"n": len(indices)} | found.to_json()
    return families


def _similarity_metric(scored: Scored) -> Metric:
    """Mean similarity of the texts to their references. A missing text counts as an empty one."""
    texts = [text or "" for text in scored.predictions]
    return mean_of(captioning.similarity(texts, [item.answers for item in scored.items]).per_item)


def _caption_metrics(scored: Scored) -> tuple[Json, str]:
    """Caption metrics, and retrieval by the written texts. A missing text counts as an empty one."""
    texts = [text or "" for text in scored.predictions]
    references = [item.answers for item in scored.items]
    found, tokens = captioning.caption_scores(texts, references)
    metrics: Json = {}
    for name, value in found.items():
        if value.value is None:
            metrics[name] = {"not_run": value.not_run}
            continue
        # Corpus BLEU is not a mean over texts, so it has no interval here.
        interval = {} if name.startswith("bleu") else bootstrap(mean_of(value.per_item), scored.groups).to_json()
        metrics[name] = interval | {"value": value.value}
    return metrics | _retrieval(texts, references, scored.groups), tokens


def _retrieval(texts: Sequence[str], references: Sequence[Sequence[str]], groups: Sequence[str]) -> Json:
    owner_M = [index for index, captions in enumerate(references) for _ in captions]
    captions = [caption for captions in references for caption in captions]
    t2a, a2t = retrieving.retrieval_ranks(embed_texts(texts), embed_texts(captions), owner_M)
    metrics: Json = {}
    directions = (("t2a", t2a, [groups[index] for index in owner_M]), ("a2t", a2t, list(groups)))
    for name, ranks, queries in directions:
        for k in (1, 5, 10):
            metrics[f"{name}_r{k}"] = bootstrap(mean_of(retrieving.recall_at(ranks, k)), queries).to_json()
        metrics[f"{name}_map10"] = bootstrap(mean_of(retrieving.average_precision_at(ranks)), queries).to_json()
        metrics[f"{name}_median_rank"] = {"value": float(np.median(retrieving.best_ranks(ranks)))}
    return metrics
