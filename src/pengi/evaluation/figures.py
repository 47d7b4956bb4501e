"""Draws the figures of a report as self-contained SVG text for an HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

CELL, FONT = 15, 10
LABEL_WIDTH_PER_LETTER = 5.6
PLOT, MARGIN = 220, 36


def confusion_svg(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A confusion matrix: a row for each true label, a column for each chosen label; dark cells have many clips."""
    gutter = int(max(len(label) for label in labels) * LABEL_WIDTH_PER_LETTER) + 12
    size = len(labels) * CELL
    parts = [_open(gutter + size + 8, gutter + size + 8, "confusion matrix, true labels down, chosen labels across")]
    for index, label in enumerate(labels):
        middle = gutter + index * CELL + CELL * 0.72
        parts.append(_text(gutter - 6, middle, label, "end"))
        parts.append(_text(0, 0, label, "start", f"translate({middle} {gutter - 6}) rotate(-90)"))
    for row, (truth, line) in enumerate(zip(labels, counts, strict=True)):
        total = sum(line)
        for column, count in enumerate(line):
            if not count:
                continue
            kind = "hit" if row == column else "miss"
            what = f"{truth} taken for {labels[column]}: {count} of {total}"
            parts.append(
                f'<rect class="{kind}" x="{gutter + column * CELL}" y="{gutter + row * CELL}" width="{CELL - 1}" '
                f'height="{CELL - 1}" fill-opacity="{0.15 + 0.85 * count / total:.2f}">'
                f"<title>{escape(what)}</title></rect>"
            )
    frame = f'<rect class="frame" x="{gutter}" y="{gutter}" width="{size}" height="{size}"/>'
    return "".join([*parts, frame, "</svg>"])


def reliability_svg(bins: Sequence[Mapping[str, Any]]) -> str:
    """A reliability diagram: accuracy (vertical) by confidence (horizontal); on the diagonal they agree."""
    total = sum(part["n"] for part in bins)
    parts = [_open(PLOT + 2 * MARGIN, PLOT + 2 * MARGIN, "reliability: accuracy by confidence")]
    parts.append(f'<rect class="frame" x="{MARGIN}" y="{MARGIN}" width="{PLOT}" height="{PLOT}"/>')
    parts.append(f'<line class="ideal" x1="{MARGIN}" y1="{MARGIN + PLOT}" x2="{MARGIN + PLOT}" y2="{MARGIN}"/>')
    points = [(MARGIN + part["confidence"] * PLOT, MARGIN + (1 - part["accuracy"]) * PLOT) for part in bins]
    parts.append(f'<polyline class="curve" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
    for (x, y), part in zip(points, bins, strict=True):
        radius = 2.5 + 9 * (part["n"] / total) ** 0.5
        what = f"{part['n']} answers of confidence {part['confidence']:.2f}, {part['accuracy']:.2f} of them right"
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{what}</title></circle>')
    for value in (0, 0.5, 1):
        parts.append(_text(MARGIN + value * PLOT, MARGIN + PLOT + 14, f"{value:g}", "middle"))
        parts.append(_text(MARGIN - 6, MARGIN + (1 - value) * PLOT + 4, f"{value:g}", "end"))
    parts.append(_text(MARGIN + PLOT / 2, MARGIN + PLOT + 30, "confidence", "middle"))
    parts.append(_text(0, 0, "accuracy", "middle", f"translate(10 {MARGIN + PLOT / 2}) rotate(-90)"))
    return "".join([*parts, "</svg>"])


def _open(width: float, height: float, what: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{escape(what)}" font-size="{FONT}">'
    )


def _text(x: float, y: float, text: str, anchor: str, transform: str = "") -> str:
    placed = f'transform="{transform}"' if transform else f'x="{x:g}" y="{y:g}"'
    return f'<text {placed} text-anchor="{anchor}">{escape(text)}</text>'
