"""The HTML of the page: pure functions from results to markup, in which all external text is escaped.

The script of the page reads times in seconds from ``data-`` attributes: ``data-seek`` plays from that time.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING
from urllib.parse import quote

from pengi.audio.formats import without_audio_suffix
from pengi.audio.pictures import (
    IMAGE_COLUMNS,
    Picture,
    frequency_ticks,
    spectrogram_png,
    time_label,
    time_ticks,
    time_unit,
    waveform_path,
)
from pengi.exports import FORMATS, Target, opened, rows_of
from pengi.plots import lanes_of
from pengi.readable import clock, percent
from pengi.results import NONE_DETECTED, SILENCE, Classification, Description, Explanation, Segment, Timeline
from pengi.serving.upload_store import StoredRecording

if TYPE_CHECKING:
    from pengi.retrieval import Hit

WAVE_HEIGHT = 64
HUES = 8
"""Colours of timeline bars in the style sheet."""
MAX_LANES = 24
"""Maximum number of labels that have lanes of their own in a timeline."""
OTHERS = "others"
"""The name of the lane that all other labels share."""
MAX_ROWS = 400
"""Maximum number of events in the list; the bars show all."""
DOWNLOADS = {"csv": "CSV", "audacity": "Audacity labels", "raven": "Raven selections", "srt": "subtitles"}
"""Formats in which a timeline can be saved, and their names on the page."""
MAX_UNFILTERED = 0.95
"""The filter is shown only if there are several labels, or an event below this confidence."""
WAITING_HTML = '<p class="pg-wait" role="status">Working<span aria-hidden="true">…</span></p>'


@dataclass(frozen=True)
class Turn:
    """A question about the recording and its answer; ``text`` is None until the answer is there."""

    question: str
    text: str | None = None
    confidence: float = 0.0
    explanation: Explanation | None = None


def header(model: str) -> str:
    """The head of the page."""
    return (
        '<header class="pg-header"><h1>Pengi</h1>'
        "<p>Ask a recording questions in plain words.</p>"
        f'<p class="pg-model" title="The model">{escape(model)}</p></header>'
    )


def notice(message: str, number: int = 0) -> str:
    """An error message; with a new number, a dismissed message is shown again."""
    sentence = message[:1].upper() + message[1:]
    sentence = sentence if sentence.endswith(".") else sentence + "."
    dismiss = '<button type="button" data-dismiss aria-label="Dismiss">×</button>'
    return f'<div class="pg-notice" data-number="{number}"><span role="alert">{escape(sentence)}</span>{dismiss}</div>'


def sound(recording: StoredRecording, picture: Picture, address: str, start_s: float | None = None) -> str:
    """The player: waveform and spectrogram over one time axis; with ``start_s`` it starts to play there."""
    info, duration_s = recording.info, picture.duration_s
    channels = {1: "mono", 2: "stereo"}.get(info.channels, f"{info.channels} channels")
    details = f"{span(duration_s)} · {info.sample_rate / 1000:g} kHz · {channels} · {info.format}"
    start = "" if start_s is None else f' data-start="{start_s:.3f}"'
    columns = len(picture.low_C)
    seen = f"Waveform and spectrogram of {recording.name}, {span(duration_s)}, up to 8 kHz"
    return (
        f'<figure class="pg-sound" id="pg-sound" data-duration="{duration_s:.3f}"{start}>'
        f'<figcaption><strong dir="auto">{escape(recording.name)}</strong> <span>{escape(details)}</span>'
        f'<span class="pg-clock"><output data-clock>{clock(0)}</output> / {clock(duration_s)}</span></figcaption>'
        f'<div class="pg-plot" data-plot role="img" aria-label="{escape(seen)}">'
        f'<svg class="pg-wave" viewBox="0 0 {columns} {WAVE_HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{waveform_path(picture, WAVE_HEIGHT)}"/></svg>'
        f'<img class="pg-spectrogram" src="{spectrogram_png(picture)}" alt="" width="{IMAGE_COLUMNS}" height="160">'
        f'<div class="pg-hertz" aria-hidden="true">{_hertz()}</div><span class="pg-head"></span></div>'
        f'<div class="pg-axis" aria-hidden="true">{_times(duration_s)}</div>'
        '<div class="pg-player"><button type="button" class="pg-play" data-play aria-label="Play"></button>'
        f'<input type="range" class="pg-seek" data-range min="0" max="{duration_s:.3f}" step="any" value="0"'
        ' aria-label="Position in the recording"></div>'
        f'<audio preload="metadata" src="{escape(address)}"></audio></figure>'
    )


def description(description: Description) -> str:
    """Caption and events."""
    events = [(event.label, event.confidence) for event in description.events]
    text = description.text or "The model found no words for it."
    return (
        f'<section class="pg-description"><p class="pg-caption" dir="auto">{escape(text[:1].upper() + text[1:])}</p>'
        + bars(events, "Sound events and how sure the model is of each")
        + explained(description.explanation)
        + "</section>"
    )


def bars(shares: Iterable[tuple[str, float]], label: str) -> str:
    """Shares in [0, 1] as bars with percentages."""
    rows = "".join(
        f'<li><span class="pg-what" dir="auto">{escape(what)}</span><span class="pg-bar" aria-hidden="true">'
        f'<span style="width:{100 * share:.1f}%"></span></span><span class="pg-share">{percent(share)}</span></li>'
        for what, share in shares
    )
    return f'<ul class="pg-bars" aria-label="{escape(label)}">{rows}</ul>' if rows else ""


def explained(explanation: Explanation | None) -> str:
    """The explanation of an answer, collapsed."""
    if explanation is None or explanation.prompt is None:
        return ""
    tags = "".join(
        f"<li><b>{escape(tag.label)}</b> {escape(tag.strength)}, {percent(tag.probability)}{_when(tag.spans)}</li>"
        for tag in explanation.tags
    )
    transcript = explanation.transcript
    spoken = "" if transcript is None else f"<p>Said: {escape(transcript) if transcript else 'nothing'}</p>"
    measured = f"<p>{escape(' '.join(explanation.descriptors))}</p>" if explanation.descriptors else ""
    return (
        '<details class="pg-why"><summary>How this was found</summary>'
        f"{f'<ul>{tags}</ul>' if tags else ''}{spoken}{measured}"
        f"<p>The language model read:</p><pre>{escape(explanation.prompt)}</pre></details>"
    )


def _when(spans: Sequence[tuple[float, float]]) -> str:
    """The first few times of a tag."""
    times = ", ".join(f"{start_s:.1f}–{end_s:.1f} s" for start_s, end_s in spans[:4])
    return f": {times}{' …' if len(spans) > 4 else ''}" if times else ""


def ranking(found: Classification) -> str:
    """Custom labels, the best first."""
    shares = bars(((score.label, score.probability) for score in found.scores), "Labels and their shares")
    none = f'<p class="pg-hint">{NONE_DETECTED}</p>'
    return shares if found.detected else none + shares


def talk(turns: Sequence[Turn]) -> str:
    """The questions and answers about one recording."""
    if not turns:
        return '<p class="pg-hint">Every question is answered from the sound alone, not from earlier answers.</p>'
    rows = []
    for turn in turns:
        answer = WAITING_HTML
        if turn.text is not None:
            sure = f"How sure the model is of exactly this wording: {percent(turn.confidence)}"
            answer = (
                f'<p dir="auto">{escape(turn.text or "(no answer)")}</p>'
                f'<span class="pg-share" role="img" title="{sure}" aria-label="{sure}">'
                f"{percent(turn.confidence)}</span>"
            )
            answer += explained(turn.explanation)
        asked = f'<p class="pg-question" dir="auto">{escape(turn.question)}</p>'
        rows.append(f'<li>{asked}<div class="pg-answer">{answer}</div></li>')
    return f'<ol class="pg-talk" aria-live="polite">{"".join(rows)}</ol>'


def stretches(timeline: Timeline, name: str = "timeline") -> str:
    """The timeline: a lane of bars for each label, over the time axis of the recording, and a list of the same events.

    The filter is above the lanes because it hides those that become empty.
    """
    duration_s = max(timeline.duration_s, 1e-6)
    if not timeline.segments:
        return '<p class="pg-hint" role="status">No event was detected.</p>'
    drawn = "".join(_lane(label, events, duration_s) for label, events in lanes(timeline.segments))
    rows = "".join(_row(segment) for segment in timeline.segments[:MAX_ROWS])
    rest = len(timeline.segments) - MAX_ROWS
    more = f'<p class="pg-hint">{rest} more events are shown as bars only.</p>' if rest > 0 else ""
    listed = f'<ol class="pg-rows" aria-label="What happens when">{rows}</ol>{more}'
    return f"{_filter(timeline.segments)}{drawn}{listed}{_downloads(name, timeline)}"


def _filter(segments: Sequence[Segment]) -> str:
    """Controls that filter events by label or confidence."""
    labels = sorted({segment.text for segment in segments})
    lowest = math.floor(20 * min(segment.confidence for segment in segments)) / 20
    if len(labels) < 2 and lowest >= MAX_UNFILTERED:
        return ""
    options = "".join(f"<option>{escape(label)}</option>" for label in labels)
    return (
        '<div class="pg-filter" data-filter><label>Show <select data-filter-label>'
        f'<option value="">all labels</option>{options}</select></label>'
        f'<label>from <input type="range" data-filter-confidence min="{lowest:g}" max="1" step="0.05"'
        f' value="{lowest:g}" aria-label="Lowest confidence" aria-valuetext="{percent(lowest)}">'
        f"<output data-filter-shown>{percent(lowest)}</output></label></div>"
    )


def _downloads(name: str, timeline: Timeline) -> str:
    """Links that save the timeline as a file for another program."""
    stem = without_audio_suffix(PurePath(name).name) or "timeline"
    links = []
    for format, title in DOWNLOADS.items():
        target, text = Target(FORMATS[format]), io.StringIO()
        with opened(target, [name], text) as export:
            export.add(name, rows_of(name, timeline))
        content = quote(text.getvalue(), safe="")
        links.append(
            f'<a download="{escape(stem)}{target.format.suffix}" href="data:text/plain;charset=utf-8,{content}">'
            f"{title}</a>"
        )
    return f'<p class="pg-downloads">Save as {" · ".join(links)}</p>'


def lanes(segments: Sequence[Segment]) -> list[tuple[str, list[Segment]]]:
    """The labels and their events. Of more than :data:`MAX_LANES` labels, those with the longest events have lanes of
    their own, and all others share the last one, in which shorter events cover longer ones."""
    named = lanes_of(segments, MAX_LANES)
    others = [segment for segment in segments if segment.text not in named]
    others.sort(key=lambda segment: (segment.start_s, -segment.end_s))
    return [*named.items(), *([(OTHERS, others)] if others else [])]


def hits(found: Sequence[Hit]) -> str:
    """The hits of a search; ``data-hit`` is the index in the list."""
    if not found:
        return '<p class="pg-hint" role="status">Nothing was found.</p>'
    rows = "".join(
        f'<li><button type="button" data-hit="{index}" title="Open and play from here">'
        f'<span class="pg-what" dir="auto">{escape(hit.text)}</span>'
        f'<span class="pg-where" dir="auto">{escape(_short(hit.path))}</span>'
        f'<span class="pg-time">{clock(hit.start_s)} – {clock(hit.end_s)}</span>'
        f'<span class="pg-score" title="Score">{hit.score:.3f}</span></button></li>'
        for index, hit in enumerate(found)
    )
    return f'<ol class="pg-rows pg-hits" aria-label="What was found">{rows}</ol>'


def span(duration_s: float) -> str:
    """A duration in words."""
    if duration_s < 60:
        return f"{duration_s:.1f} s"
    if duration_s < 3_600:
        return f"{int(duration_s // 60)} min {int(duration_s % 60)} s"
    return f"{int(duration_s // 3_600)} h {int(duration_s % 3_600 // 60)} min"


def _short(path: str) -> str:
    """A file with its folder, without the rest of the path."""
    return "/".join(PurePath(path).parts[-2:])


def _times(duration_s: float) -> str:
    marks = []
    for tick in time_ticks(duration_s):
        share = tick / duration_s
        # The first and the last label stay within the picture.
        css_class = "pg-first" if share == 0 else "pg-last" if share > 0.97 else ""
        marks.append(f'<span class="{css_class}" style="left:{100 * share:.3f}%">{time_label(tick, duration_s)}</span>')
    return "".join(marks) + f'<span class="pg-unit">{time_unit(duration_s)}</span>'


def _hertz() -> str:
    return "".join(
        f'<span style="bottom:{100 * height:.2f}%">{f"{tick // 1000} kHz" if tick >= 1000 else f"{tick} Hz"}</span>'
        for tick, height in frequency_ticks()
    )


def _hue(label: str) -> str:
    """The CSS class for the colour of a label, which is the same in every recording."""
    return "pg-quiet" if label == SILENCE else f"pg-hue{zlib.crc32(label.encode()) % HUES}"


def _times_of(segment: Segment) -> str:
    shown = f'data-label="{escape(segment.text)}" data-confidence="{segment.confidence:.3f}"'
    return f'data-seek="{segment.start_s:.3f}" data-until="{segment.end_s:.3f}" {shown}'


def _lane(label: str, events: Sequence[Segment], duration_s: float) -> str:
    """The name of a label, and a row of bars."""
    name = f'<span class="pg-name" dir="auto" title="{escape(label)}">{escape(label)}</span>'
    bars_html = "".join(_bar(segment, duration_s) for segment in events)
    return f'<div class="pg-lane">{name}<div class="pg-track">{bars_html}</div></div>'


def _bar(segment: Segment, duration_s: float) -> str:
    text = f"{clock(segment.start_s)} – {clock(segment.end_s)}: {segment.text}, {percent(segment.confidence)}"
    left, width = 100 * segment.start_s / duration_s, 100 * (segment.end_s - segment.start_s) / duration_s
    return (
        f'<button type="button" class="{_hue(segment.text)}" {_times_of(segment)} title="{escape(text)}"'
        f' aria-label="Play {escape(text)}" style="left:{left:.3f}%;width:{width:.3f}%"></button>'
    )


def _row(segment: Segment) -> str:
    return (
        f'<li><button type="button" {_times_of(segment)}><span class="pg-dot {_hue(segment.text)}"></span>'
        f'<span class="pg-time">{clock(segment.start_s)} – {clock(segment.end_s)}</span>'
        f'<span class="pg-what" dir="auto">{escape(segment.text)}</span>'
        f'<span class="pg-share">{percent(segment.confidence)}</span></button></li>'
    )
