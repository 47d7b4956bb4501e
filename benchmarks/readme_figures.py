"""Writes the measured figures of the suite ``local`` into the tables of the README and the model card.

    pengi eval --suite local --manifest ../shared/data/manifest.jsonl --out runs/local
    cp runs/local/results.md runs/local/run.json results/local/
    python benchmarks/readme_figures.py results/local/results.md README.md src/pengi/assets/pengi-mini/README.md

A row of a table is found by its first cells, which stay as they are. A file is only written if all rows were found.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

# Source of a row of the README -> benchmark. Rows with the same source are told apart by the beginning of the task.
README_ROWS = {
    "sound events": "val-esc50", "spoken digits": "val-digits", "spoken keywords": "val-keywords",
    "wake words": "val-wake-words", "speaker's gender": "val-gender", "language of a word": "val-language",
    "instrument of a note": "val-philharmonia", "instrument of a phrase": "val-keyboardia", "genre": "val-genre",
    "emotion": "val-emotion", "questions about coffee orders": "val-orders", "open questions": "val-open",
    "questions about composed": "val-composed", "name and octave": "val-notes", "a description": "match",
}  # fmt: skip
CARD_ROWS = {
    "everyday sounds": ("val-esc50", "ours"), "the same, stock": ("val-esc50", "tagger"),
    "open questions": ("val-open", "ours"), "questions about composed": ("val-composed", "ours"),
    "questions about coffee": ("val-orders", "ours"), "name and octave": ("val-notes", "ours"),
    "questions that the sound": ("refused, off topic", "ours"),
    "other questions, refused": ("refused, answerable", "ours"),
}  # fmt: skip
Figures = dict[str, dict[str, str]]


def cells_of(line: str) -> list[str]:
    """The cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def number(cell: str) -> str:
    """``0.785`` of ``0.785 (0.714 to 0.855)``; empty where nothing was measured."""
    found = re.match(r"[\d.]+", cell)
    return found[0] if found else ""


def read(results: Path) -> Figures:
    """For each benchmark: n, ours, blind and tagger; also those of ESC-50 written freely, and the refusals."""
    figures: Figures = {}
    for line in results.read_text(encoding="utf-8").splitlines():
        cells = cells_of(line)
        if name := re.search(r"\((val-[\w-]+)@\d+\)", line):
            figures[name[1]] = dict(
                zip(("n", "ours", "blind", "tagger"), map(number, (cells[2], *cells[4:7])), strict=True)
            )
        elif len(cells) > 4 and cells[1] == "match" and cells[0].startswith("ESC-50"):
            figures["match"] = {"ours": number(cells[2]), "blind": number(cells[4]), "tagger": ""}
        elif len(cells) > 4 and cells[0] == "Open questions" and cells[1].startswith("refused"):
            figures[cells[1]] = {"ours": number(cells[3])}
    figures["match"]["n"] = figures["val-esc50"]["n"]
    return figures


def filled(text: str, figures: Figures) -> Iterator[str]:
    """The lines of a file with the figures.

    Raises:
        SystemExit: if a row is missing.
    """
    is_card = text.startswith("# pengi-mini")
    missing = set(CARD_ROWS if is_card else README_ROWS)
    for line in text.split("\n"):
        cells = cells_of(line) if line.startswith("| ") else [""]
        row = next((begin for begin in missing if cells[0].startswith(begin)), None)
        if row is None or not number(cells[-1 if is_card else 2]):
            yield line
        elif is_card:
            missing.remove(row)
            name, column = CARD_ROWS[row]
            yield f"| {cells[0]} | {cells[1]} | {figures[name][column]} |"
        else:
            missing.remove(row)
            found = figures[README_ROWS[row]]
            shown = [*cells[:2], *(found[key] for key in ("n", "ours", "blind", "tagger"))]
            yield "|" + "".join(f" {cell} |" if cell else "  |" for cell in shown)
    if missing:
        raise SystemExit(f"no row begins with {', '.join(sorted(missing))}")


def main() -> None:
    results, *files = map(Path, sys.argv[1:])
    figures = read(results)
    for file in files:
        lines = list(filled(file.read_text(encoding="utf-8"), figures))
        file.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
