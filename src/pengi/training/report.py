"""Writes the report at the end of a run: ``report.md`` with numbers and answers, ``curves.png`` with curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pengi.training.journal import Sample
from pengi.writing import replacing

REPORT_FILE, CURVES_FILE = "report.md", "curves.png"
History = Sequence[Mapping[str, float]]


def curve(history: History, key: str) -> tuple[list[float], list[float]]:
    """Steps and values of everything that was logged under ``key``."""
    entries = [entry for entry in history if key in entry]
    return [entry["step"] for entry in entries], [entry[key] for entry in entries]


def draw_curves(history: History, path: Path) -> None:
    """One picture: losses and the learning rate."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [("loss", ["loss", "val_loss"]), ("lr", ["lr"])]
    figure = Figure(figsize=(8, 3 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    for index, (title, keys) in enumerate(panels):
        axes = figure.add_subplot(len(panels), 1, index + 1)
        for key in keys:
            steps, values = curve(history, key)
            if steps:
                axes.plot(steps, values, label=key, marker="o" if key != "loss" and key != "lr" else None)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        if len(keys) > 1:
            axes.legend()
    figure.axes[-1].set_xlabel("step")
    figure.savefig(path, dpi=120)


def write_report(
    folder: Path,
    name: str,
    rows: Mapping[str, str],
    history: History,
    samples: Sequence[Sample],
    best: Mapping[str, float] | None,
    more: Sequence[str] = (),
) -> None:
    """Write both files.

    Args:
        folder: of the run.
        name: of the model.
        rows: further rows of the table.
        history: all that was logged.
        samples: answers; those of the last validation are shown.
        best: step and validation loss of the best checkpoint, if there was any.
        more: further lines.
    """
    draw_curves(history, folder / CURVES_FILE)
    steps, losses = curve(history, "loss")
    _, rates = curve(history, "examples_per_second")
    lines = [f"# Training of {name}", "", f"![curves]({CURVES_FILE})", "", "| | |", "|---|---|"]
    if steps:
        lines += [f"| last step | {steps[-1]:.0f} |", f"| loss there | {losses[-1]:.3f} |"]
    if best is not None:
        lines.append(f"| best on held-out clips | {best['val_loss']:.3f} at step {best['step']:.0f}, in `best/` |")
    if rates:
        lines.append(f"| examples per second | {sum(rates) / len(rates):.1f} |")
    lines += [f"| {what} | {value} |" for what, value in rows.items()]
    last = [sample for sample in samples if sample.step == samples[-1].step]
    if last:
        lines += [
            "",
            f"## Answers at step {last[0].step}",
            "",
            "| clip | prompt | right | answer |",
            "|---|---|---|---|",
        ]
        cells = [(sample.clip, sample.prompt, sample.target, sample.answer) for sample in last]
        lines += ["| " + " | ".join(_cell(text) for text in row) + " |" for row in cells]
    lines += ["", *more] if more else []
    with replacing(folder / REPORT_FILE) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
