"""Compares two runs on the items that both answered, and tests whether the difference is significant."""

from __future__ import annotations

from pathlib import Path

from pengi.errors import InputError
from pengi.evaluation.benchmarks import Benchmark
from pengi.evaluation.scoring import SLOW_RESAMPLES, Json, Scored, headline_metric
from pengi.evaluation.statistics import RESAMPLES, mcnemar, paired_bootstrap
from pengi.evaluation.suites import scored_answers


def compare(first: Path, second: Path) -> list[Json]:
    """Differences of the headline metrics, second run minus first run, over the items that both answered.

    Captions are compared by their similarity to the references, which is a metric of single items.

    Raises:
        InputError: if a folder is not a run, or the runs have nothing in common.
    """
    answers = {(benchmark.id, system, mode): scored for benchmark, system, mode, scored in scored_answers(first)}
    rows = []
    for benchmark, system, mode, scored in scored_answers(second):
        before = answers.get((benchmark.id, system, mode))
        if before is None:
            continue
        shared = {item.id for item in before.items} & {item.id for item in scored.items}
        if shared:
            difference = _difference(benchmark, _only(before, shared), _only(scored, shared))
            rows.append({"benchmark": benchmark.name, "system": system, "mode": mode, **difference})
    if not rows:
        raise InputError(f"'{first}' and '{second}' have no benchmark, system and mode in common")
    return rows


def _only(scored: Scored, ids: set[str]) -> Scored:
    """The items with these ids, ordered by id."""
    kept = (index for index, item in enumerate(scored.items) if item.id in ids)
    indices = sorted(kept, key=lambda index: scored.items[index].id)
    return Scored(
        tuple(scored.items[index] for index in indices),
        tuple(scored.rows[index] for index in indices),
        tuple(scored.predictions[index] for index in indices),
        None if scored.credit_N is None else scored.credit_N[indices],
        None if scored.scores_NL is None else scored.scores_NL[indices],
    )


def _difference(benchmark: Benchmark, first: Scored, second: Scored) -> Json:
    metrics = headline_metric(benchmark, first), headline_metric(benchmark, second)
    found = paired_bootstrap(*metrics, first.groups, SLOW_RESAMPLES if benchmark.kind == "tag" else RESAMPLES)
    row: Json = {
        "metric": {"tag": "map", "caption": "similarity"}.get(benchmark.kind, "accuracy"),
        "n": len(first.items),
        "difference": found.value,
        "ci95": [found.low, found.high],
        "p_bootstrap": found.p,
    }
    if benchmark.kind in ("classify", "choice") and first.credit_N is not None and second.credit_N is not None:
        before, after = (first.credit_N == 1).tolist(), (second.credit_N == 1).tolist()
        row["p_mcnemar"] = mcnemar(before, after)
        answers = list(zip(first.items, before, after, strict=True))
        row["gained"] = [item.id for item, was_right, is_right in answers if is_right and not was_right]
        row["lost"] = [item.id for item, was_right, is_right in answers if was_right and not is_right]
    return row
