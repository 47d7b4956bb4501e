"""Writes the report of a run from its results: Markdown for a repository, and one self-contained HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from pengi.audio.decode import load
from pengi.errors import PengiError
from pengi.evaluation.benchmarks import ANSWER_MODES, MATCHER, Benchmark
from pengi.evaluation.figures import confusion_svg, reliability_svg
from pengi.evaluation.scoring import Json, Scored
from pengi.evaluation.suites import CHANCE, benchmark_of, scored_answers
from pengi.writing import replacing

MARKDOWN_FILE, PAGE_FILE = "results.md", "report.html"
TEMPLATE = Path(__file__).resolve().parents[1] / "assets" / "report.html"
REPORT_AUDIO = ("free", "all", "none")
EXAMPLES = 4
EXAMPLE_S, EXAMPLE_RATE = 6.0, 16_000
BASELINES = ("blind", "yamnet-match", CHANCE)
CAPTION_COLUMNS = ("bleu_1", "bleu_4", "meteor", "rouge_l", "cider_d", "spice", "spider", "similarity")
RETRIEVAL_COLUMNS = ("r1", "r5", "r10", "map10", "median_rank")
NAMES = {
    "accuracy": "accuracy", "map": "mAP", "macro_f1": "macro F1", "bleu_1": "BLEU-1", "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3", "bleu_4": "BLEU-4", "meteor": "METEOR", "rouge_l": "ROUGE-L", "cider_d": "CIDEr-D",
    "spice": "SPICE", "spider": "SPIDEr", "similarity": "similarity", "r1": "R@1", "r5": "R@5", "r10": "R@10",
    "map10": "mAP@10", "median_rank": "median rank", "refused_off_topic": "refused, off topic",
    "refused_answerable": "refused, answerable", "t2a": "text to audio", "a2t": "audio to text",
}  # fmt: skip
_DASH = "–"
_WILSON = "Wilson's where all answers are right or all wrong"


@dataclass(frozen=True)
class ReportTable:
    """A table of text cells, with a title above and notes below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class WrongAnswer:
    """One wrong answer; ``audio`` is a data URI, or None if the recording is missing or may not be redistributed."""

    id: str
    question: str
    right: str
    said: str
    credit: str
    audio: str | None


@dataclass(frozen=True)
class Detail:
    """The details of one benchmark, mode and system."""

    title: str
    subtitle: str
    confusion: str | None
    reliability: str | None
    ece: float | None
    examples: tuple[WrongAnswer, ...]


def write_report(out: Path, found: Json, report_audio: str = "free") -> tuple[Path, Path]:
    """Write ``results.md`` and ``report.html`` beside the results of a run; return their paths.

    Args:
        out: folder of the run.
        found: the results of :func:`pengi.evaluation.suites.score_run`.
        report_audio: which recordings of wrong answers the page includes: "free" (those that may be redistributed),
            "all" or "none".
    """
    from jinja2 import Environment

    tables = list(report_tables(found))
    markdown, page = out / MARKDOWN_FILE, out / PAGE_FILE
    with replacing(markdown) as partial:
        partial.write_text(_markdown(found, tables), encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    text = template.render(
        run=found["run"],
        tables=tables,
        details=list(_details(out, found, report_audio)),
        modes=_modes_used(found),
        run_rows=_run_rows(found),
    )
    with replacing(page) as partial:
        partial.write_text(text, encoding="utf-8")
    return markdown, page


def report_tables(found: Json) -> Iterator[ReportTable]:
    """The tables of a report that have rows."""
    for make in (_main_table, _modes_table, _family_table, _caption_table, _retrieval_table, _not_run_table):
        table = make(found)
        if table.rows:
            yield table


def _main_table(found: Json) -> ReportTable:
    rows, notes = [], []
    missing = {row["benchmark"]: row["missing"] for row in found["run"]["data"]}
    for benchmark, results in _by_benchmark(found):
        if benchmark.kind == "caption":
            continue
        metric, headline = benchmark.metrics[0], _headline(benchmark, results)
        rows.append(
            (
                f"{benchmark.title} ({benchmark.id})",
                NAMES[metric],
                _answered(headline),
                headline["mode"],
                _with_interval(headline, metric),
                *(_value(_of(results, name, headline["mode"]), metric) for name in BASELINES),
                _reported(benchmark, metric, "paper"),
                _reported(benchmark, metric, "others"),
            )
        )
        notes += [f"{benchmark.title}: {note}" for note in _notes(benchmark)]
        if missing.get(benchmark.id):
            notes.append(f"{benchmark.title}: {missing[benchmark.id]} recordings of the dataset are missing")
    columns = ("benchmark", "metric", "n", "mode", "ours (95 %)", *BASELINES, "paper", "others")
    return ReportTable("Results", columns, tuple(rows), tuple(notes))


def _modes_table(found: Json) -> ReportTable:
    rows = []
    for benchmark, results in _by_benchmark(found):
        models = [result for result in results if result["system"] == "model"]
        if len(models) < 2:
            continue
        for result in sorted(models, key=lambda result: list(ANSWER_MODES).index(result["mode"])):
            metrics = [_with_interval(result, metric) for metric in benchmark.metrics]
            blind = _value(_of(results, "blind", result["mode"]), benchmark.metrics[0])
            ece = result.get("reliability", {}).get("ece")
            calibration = _DASH if ece is None else f"{ece:.3f}"
            second = metrics[1] if len(metrics) > 1 else _DASH
            rows.append(
                (benchmark.title, result["mode"], metrics[0], second, blind, calibration, f"{result['seconds']:.0f}")
            )
    columns = ("benchmark", "mode", "accuracy or mAP (95 %)", "macro F1 (95 %)", "blind", "ECE", "seconds")
    return ReportTable("Answer modes", columns, tuple(rows))


def _family_table(found: Json) -> ReportTable:
    """Accuracy of open questions by family, and how often they are refused."""
    rows = []
    for benchmark, results in _by_benchmark(found):
        if benchmark.kind != "open":
            continue
        headline = _headline(benchmark, results)
        blind = _of(results, "blind", headline["mode"]) or {"families": {}}
        for family, scores in headline["families"].items():
            ours = _with_interval({"metrics": headline["families"]}, family)
            rows.append(
                (benchmark.title, family, str(scores["n"]), ours, _value({"metrics": blind["families"]}, family))
            )
        rows += [
            (benchmark.title, NAMES[name], "", _with_interval(headline, name), _value(blind, name))
            for name in ("refused_off_topic", "refused_answerable")
            if name in headline["metrics"]
        ]
    return ReportTable("Open questions", ("benchmark", "family", "n", "ours (95 %)", "blind"), tuple(rows))


def _caption_table(found: Json) -> ReportTable:
    rows, notes = [], []
    for benchmark, results in _by_benchmark(found):
        if benchmark.kind != "caption":
            continue
        for result in results:
            cells = [_value(result, metric) for metric in CAPTION_COLUMNS]
            rows.append((benchmark.title, result["system"], _answered(result), *cells))
            notes += [
                f"{result['title']}: {NAMES[name]} is not run: {metric['not_run']}"
                for name, metric in result["metrics"].items()
                if "not_run" in metric
            ]
            notes.append(f"{benchmark.title}: tokens: {result['tokens']}")
        for by in ("paper", "others"):
            if any(number.by == by for number in benchmark.reported):
                rows.append(
                    (benchmark.title, by, "", *(_reported(benchmark, metric, by) for metric in CAPTION_COLUMNS))
                )
    columns = ("benchmark", "system", "n", *(NAMES[metric] for metric in CAPTION_COLUMNS))
    return ReportTable("Captions", columns, tuple(rows), tuple(dict.fromkeys(notes)))


def _retrieval_table(found: Json) -> ReportTable:
    rows = []
    for benchmark, results in _by_benchmark(found):
        if benchmark.kind != "caption":
            continue
        for direction in ("t2a", "a2t"):
            names = [f"{direction}_{column}" for column in RETRIEVAL_COLUMNS]
            rows += [
                (benchmark.title, NAMES[direction], result["system"], *(_value(result, name) for name in names))
                for result in results
            ]
            if any(benchmark.numbers(name, "paper") for name in names):
                reported = (_reported(benchmark, name, "paper") for name in names)
                rows.append((benchmark.title, NAMES[direction], "paper", *reported))
    columns = ("benchmark", "direction", "system", *(NAMES[column] for column in RETRIEVAL_COLUMNS))
    notes = (
        "Recordings are indexed by the text that the model writes about them; ties count against.",
        "By the audio's own embedding: not run, because the model has no space that audio and text share.",
    )
    return ReportTable("Retrieval", columns, tuple(rows), notes)


def _not_run_table(found: Json) -> ReportTable:
    rows = []
    for skipped in found["run"]["not_run"]:
        benchmark = benchmark_of(found["run"], skipped["benchmark"])
        rows.append(
            (benchmark.title, skipped.get("system", "all"), skipped["reason"], benchmark.how_to_get, benchmark.license)
        )
    return ReportTable("Not run", ("benchmark", "system", "reason", "data", "licence"), tuple(rows))


def _by_benchmark(found: Json) -> Iterator[tuple[Benchmark, list[Json]]]:
    by_id: dict[tuple[str, int], list[Json]] = {}
    for result in found["results"]:
        by_id.setdefault((result["benchmark"], result["version"]), []).append(result)
    for (name, version), results in by_id.items():
        yield benchmark_of(found["run"], f"{name}@{version}"), results


def _headline(benchmark: Benchmark, results: Sequence[Json]) -> Json:
    """The model's result in the first of the benchmark's modes that was run, or else in any mode that was run.

    If no model was measured, the baseline's result.
    """
    models = {result["mode"]: result for result in results if result["system"] == "model"}
    models = models or {result["mode"]: result for result in results if result["system"] != CHANCE}
    return next(models[mode] for mode in (*benchmark.modes, *models) if mode in models)


def _of(results: Sequence[Json], system: str, mode: str) -> Json | None:
    """A system's result in a mode; if it ran in one mode only, its result in that mode."""
    found = [result for result in results if result["system"] == system]
    return next((result for result in found if result["mode"] == mode), found[0] if len(found) == 1 else None)


def _value(result: Json | None, metric: str) -> str:
    found = (result or {}).get("metrics", {}).get(metric)
    if found is None:
        return _DASH
    if "value" not in found:
        return "not run"
    return f"{found['value']:.1f}" if metric.endswith("rank") else f"{found['value']:.3f}"


def _with_interval(result: Json, metric: str) -> str:
    found = result["metrics"].get(metric, {})
    if "ci95" not in found:
        return _value(result, metric)
    low, high = found["ci95"]
    return f"{found['value']:.3f} ({low:.3f} to {high:.3f})"


def _answered(result: Json) -> str:
    return str(result["n"]) if result["n"] == result["of"] else f"{result['n']} of {result['of']}"


def _reported(benchmark: Benchmark, metric: str, by: str) -> str:
    """Reported numbers as text; "not verified" in place of those that were not verified at their source."""
    numbers = benchmark.numbers(metric, by)
    if not numbers:
        return _DASH
    return ", ".join(f"{number.value:.4g}" if number.verified else "not verified" for number in numbers)


def _notes(benchmark: Benchmark) -> list[str]:
    notes = [benchmark.note] if benchmark.note else []
    for number in benchmark.reported:
        if number.note:
            value = f"{number.value:.4g}" if number.verified else "a number that is not verified"
            notes.append(f"{number.by}: {value}, {number.note}")
    return notes


def _modes_used(found: Json) -> dict[str, str]:
    used = {result["mode"] for result in found["results"]}
    return {mode: meaning for mode, meaning in ANSWER_MODES.items() if mode in used}


def _run_rows(found: Json) -> list[tuple[str, str]]:
    run = found["run"]
    software = run["software"]
    return [
        ("model", f"{run['model']['name']}, SHA-256 {run['model']['sha256'][:16]}, on {run['model']['device']}"),
        ("command", run["command"]),
        ("started", f"{run['started']}, {run['seconds']:.0f} s, {software['threads']} threads, {software['machine']}"),
        (
            "code",
            f"pengi {software['pengi']}, commit {software['commit'] or 'unknown'}, {software['code_sha256'][:16]}",
        ),
        ("software", f"Python {software['python']}, torch {software['torch']}"),
        (
            "intervals",
            f"95 %, bootstrap over recordings, speakers or tracks, seed {run['seed']}; {_WILSON}",
        ),
        ("matcher", MATCHER),
    ]


def _markdown(found: Json, tables: Sequence[ReportTable]) -> str:
    lines = ["# Evaluation", "", *(f"- {name}: {value}" for name, value in _run_rows(found)), ""]
    for table in tables:
        lines += [f"## {table.title}", "", "| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows]
        lines += ["", *(f"- {note}" for note in table.notes), *([""] if table.notes else [])]
    lines += ["## Modes", "", *(f"- `{mode}`: {meaning}" for mode, meaning in _modes_used(found).items())]
    return "\n".join(lines) + "\n"


def _details(out: Path, found: Json, report_audio: str) -> Iterator[Detail]:
    """Figures and wrong answers of the model's headline mode of each benchmark."""
    answers = {(benchmark.id, system, mode): scored for benchmark, system, mode, scored in scored_answers(out)}
    folders = {row["benchmark"]: Path(row["manifest"]).parent for row in found["run"]["data"]}
    for benchmark, results in _by_benchmark(found):
        if benchmark.kind == "caption":
            continue
        headline = _headline(benchmark, results)
        mode = headline["mode"]
        scored = answers[benchmark.id, headline["system"], mode]
        confusion, calibration = headline.get("confusion"), headline.get("reliability")
        yield Detail(
            title=benchmark.title,
            subtitle=f"{benchmark.id}, {mode}, {_with_interval(headline, benchmark.metrics[0])}",
            confusion=confusion_svg(confusion["labels"], confusion["counts"]) if confusion else None,
            reliability=reliability_svg(calibration["bins"]) if calibration else None,
            ece=calibration["ece"] if calibration else None,
            examples=tuple(_examples(scored, folders[benchmark.id], report_audio)) if benchmark.kind != "tag" else (),
        )


def _examples(scored: Scored, folder: Path, report_audio: str) -> Iterator[WrongAnswer]:
    """Wrong answers, the most confident first, at most one for each true answer."""
    assert scored.credit_N is not None
    wrong = [index for index in np.flatnonzero(scored.credit_N == 0) if scored.predictions[index] is not None]
    if scored.scores_NL is not None:
        best_N = scored.scores_NL.max(1)
        wrong.sort(key=lambda index: -best_N[index])
    seen: set[str] = set()
    for index in wrong:
        item = scored.items[index]
        if item.answers[0] in seen:
            continue
        seen.add(item.answers[0])
        is_included = report_audio == "all" or (report_audio == "free" and item.redistribute)
        yield WrongAnswer(
            id=item.id,
            question=item.prompt,
            right=", ".join(dict.fromkeys(item.answers)),
            said=str(scored.predictions[index]),
            credit=item.credit,
            audio=_data_uri(folder / item.audio) if is_included else None,
        )
        if len(seen) == EXAMPLES:
            return


def _data_uri(path: Path) -> str | None:
    """The first seconds of a recording as Ogg Vorbis in a data URI; None if the recording no longer exists."""
    try:
        waveform_S = load(path, EXAMPLE_RATE, duration_s=EXAMPLE_S)
    except PengiError:
        return None
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform_S, EXAMPLE_RATE, format="OGG", subtype="VORBIS")
    return "data:audio/ogg;base64," + base64.b64encode(buffer.getvalue()).decode()
