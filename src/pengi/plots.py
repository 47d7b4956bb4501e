"""Pictures of timelines, with the waveform and the spectrogram (extra ``plot``)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pengi.audio.decode import AudioSource, probe
from pengi.audio.pictures import (
    INK,
    RANGE_DB,
    Picture,
    draw,
    frequency_ticks,
    ink_colours,
    time_label,
    time_ticks,
    time_unit,
)
from pengi.errors import InputError, how_to_install
from pengi.results import SILENCE, Segment, Timeline
from pengi.writing import replacing

MAX_LANES = 40
"""Maximum number of labels that are drawn; of more labels, those with the longest events."""
WIDTH_IN, WAVE_IN, SPECTROGRAM_IN, LANE_IN = 12.0, 0.9, 2.4, 0.26
DPI = 120
TERMINAL_ROWS, TERMINAL_INKS = 7, 32
"""Rows of characters, and number of colours, of a spectrogram in a terminal."""


def check_plotting() -> None:
    """Check that pictures can be drawn.

    Raises:
        InputError: if matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(f"a plot needs matplotlib; {how_to_install('plot')}") from error


def plot_timeline(source: AudioSource, timeline: Timeline, path: Path, title: str = "") -> None:
    """Draw waveform, spectrogram and a lane for each label, over one time axis, into a picture (PNG, SVG or PDF).

    The darker an event, the more confident it is.

    Args:
        source: the recording.
        timeline: the recording's timeline.
        path: of the picture; its suffix names the format.
        title: text above the picture.

    Raises:
        InputError: if matplotlib is not installed, or the picture cannot be written.
        AudioError: if the recording cannot be decoded.
    """
    check_plotting()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = draw(source, timeline.duration_s or probe(source).duration_s)
    lanes = lanes_of(timeline.segments)
    heights = [WAVE_IN, SPECTROGRAM_IN, LANE_IN * (len(lanes) + 1)]
    figure = Figure(figsize=(WIDTH_IN, sum(heights) + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    wave, spectrogram, rows = figure.subplots(3, 1, sharex=True, height_ratios=heights)
    _draw_sound(wave, spectrogram, picture)
    _draw_lanes(rows, lanes)
    _draw_times(rows, picture.duration_s)
    wave.set_title(title, loc="left", fontsize=10)
    labels = len({segment.text for segment in timeline.segments})
    if labels > len(lanes):
        wave.set_title(f"{len(lanes)} of {labels} labels, those with the longest events", loc="right", fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=DPI)


def lanes_of(segments: Sequence[Segment], max_lanes: int = MAX_LANES) -> dict[str, list[Segment]]:
    """The events of each label, the labels in the order of their first events.

    Of more than ``max_lanes`` labels, those with the longest events are kept.
    """
    lanes: defaultdict[str, list[Segment]] = defaultdict(list)
    for segment in sorted(segments, key=lambda segment: segment.start_s):
        lanes[segment.text].append(segment)
    length_s = {label: sum(part.end_s - part.start_s for part in parts) for label, parts in lanes.items()}
    longest = set(sorted(lanes, key=lambda label: -length_s[label])[:max_lanes])
    return {label: parts for label, parts in lanes.items() if label in longest}


def _draw_sound(wave: Any, spectrogram: Any, picture: Picture) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    edges_s = np.linspace(0, picture.duration_s, len(picture.low_C))
    wave.fill_between(edges_s, picture.low_C, picture.high_C, color=INK[-2], linewidth=0.3)
    wave.set_ylim(-picture.peak, picture.peak)
    wave.set_yticks([])
    spectrogram.imshow(
        picture.level_MC,
        cmap=LinearSegmentedColormap.from_list("ink", INK),
        vmin=-RANGE_DB,
        vmax=0,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, picture.duration_s, 0, 1),
    )
    ticks = frequency_ticks()
    spectrogram.set_yticks([height for _, height in ticks])
    spectrogram.set_yticklabels([f"{hertz / 1000:g} kHz" if hertz >= 1000 else f"{hertz} Hz" for hertz, _ in ticks])
    spectrogram.tick_params(axis="y", labelsize=7)


def _draw_times(axes: Any, duration_s: float) -> None:
    ticks = time_ticks(duration_s)
    axes.set_xlim(0, duration_s)
    axes.set_xticks(ticks)
    axes.set_xticklabels([time_label(tick, duration_s) for tick in ticks])
    axes.set_xlabel({"s": "time (s)", "min": "time (min:s)", "h": "time (h:min)"}[time_unit(duration_s)])


def _draw_lanes(axes: Any, lanes: dict[str, list[Segment]]) -> None:
    from matplotlib import colormaps

    colours = colormaps["tab10"](range(10))
    for row, (label, parts) in enumerate(lanes.items()):
        colour = "#9a9a9a" if label == SILENCE else colours[row % len(colours)]
        for part in parts:
            # An event of low confidence stays visible.
            alpha = 0.25 + 0.75 * min(max(part.confidence, 0.0), 1.0)
            axes.broken_barh([(part.start_s, part.end_s - part.start_s)], (row - 0.36, 0.72), color=colour, alpha=alpha)
    axes.set_ylim(max(len(lanes), 1) - 0.4, -0.6)
    axes.set_yticks(range(len(lanes)))
    axes.set_yticklabels([label if len(label) <= 32 else f"{label[:31]}…" for label in lanes], fontsize=8)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    if not lanes:
        axes.text(0.5, 0.5, "no event was detected", transform=axes.transAxes, ha="center", va="center")


def terminal_spectrogram(source: AudioSource, columns: int) -> list[list[tuple[str, str]]]:
    """A small spectrogram for a terminal; each row of characters shows two bands.

    Returns:
        For each row, from the top, the colours of the upper and the lower half of each character.

    Raises:
        AudioError: if the recording cannot be decoded.
    """
    picture = draw(source, probe(source).duration_s)
    level_MC = picture.level_MC
    columns = min(columns, level_MC.shape[1])
    bands = np.array_split(np.arange(len(level_MC)), 2 * TERMINAL_ROWS)
    edges = [math.floor(index * level_MC.shape[1] / columns) for index in range(columns + 1)]
    pooled_BC = np.array([[level_MC[band, edges[c] : edges[c + 1]].max() for c in range(columns)] for band in bands])
    # The colours are those of a dark screen, so silence is dark.
    inks = ["#" + "".join(f"{value:02x}" for value in colour) for colour in ink_colours(TERMINAL_INKS)[::-1]]
    highest = TERMINAL_INKS - 1
    index_BC = np.clip(np.round((pooled_BC / RANGE_DB + 1) * highest), 0, highest).astype(int)[::-1]
    return [
        [(inks[upper], inks[lower]) for upper, lower in zip(index_BC[2 * row], index_BC[2 * row + 1], strict=True)]
        for row in range(TERMINAL_ROWS)
    ]
