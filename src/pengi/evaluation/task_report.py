"""The report of one task, which ``pengi eval --task`` prints."""

from __future__ import annotations

from pathlib import Path

from pengi.evaluation.benchmarks import ANSWER_MODES, TAGGER_MODE
from pengi.evaluation.items import left_out
from pengi.evaluation.scoring import Json
from pengi.evaluation.suites import scored_answers

PROTOCOL = {
    "ci95": "bootstrap over groups (recordings, speakers or tracks); Wilson's where all answers are right or all wrong",
    "right": "the prediction is one of the clip's answers; a clip that cannot be used counts as wrong",
    "per_class": "a clip counts under each of its answers",
}


def task_report(out: Path, found: Json, method: str) -> Json:
    """The report as JSON values; a clip that could not be used counts as wrong and is listed in ``errors``.

    Args:
        out: folder of a run of one task.
        found: the results of :func:`pengi.evaluation.suites.score_run`.
        method: the answer mode of the model, or the name of the baseline, that was measured.
    """
    system, mode = ("model", method) if method in ANSWER_MODES else (method, TAGGER_MODE)
    [result] = [result for result in found["results"] if (result["system"], result["mode"]) == (system, mode)]
    [(benchmark, scored)] = [(row[0], row[3]) for row in scored_answers(out) if row[1:3] == (system, mode)]
    assert scored.credit_N is not None
    [data] = found["run"]["data"]
    accuracy = result["metrics"]["accuracy"]
    return {
        "task": benchmark.field,
        "source": benchmark.source,
        "split": benchmark.split,
        "method": method,
        "model": found["run"]["model"]["name"],
        "prompt": benchmark.prompt if system == "model" else None,
        "labels": list(scored.items[0].labels),
        "n": result["n"],
        "correct": int(scored.credit_N.sum()),
        "accuracy": accuracy["value"],
        "ci95": accuracy["ci95"],
        "mean_recall": result["mean_recall"],
        "macro_f1": result["metrics"]["macro_f1"]["value"],
        "per_class": result["per_class"],
        "errors": [
            {"id": row["id"], "audio": row["audio"], "error": row["error"]} for row in scored.rows if "error" in row
        ],
        "left_out": left_out(benchmark, Path(data["manifest"])),
        "seconds": result["seconds"],
        "protocol": PROTOCOL | {"manifest_sha256": data["sha256"]},
    }
