"""The actions of the page, when something is dropped, asked or clicked.

Every action is a generator of updates ``{component: value}``: first what can be shown at once, then the answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, Unpack

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from pengi.audio.pictures import draw
from pengi.audio.sources import ReadingOptions
from pengi.calls import ClassifyOptions, DescribeOptions, WritingOptions
from pengi.errors import InputError, PengiError
from pengi.results import Answer, Classification, Description, Timeline
from pengi.retrieval import Collection, Hit
from pengi.serving import page_views as views
from pengi.serving.page_views import Turn
from pengi.serving.upload_store import StoredRecording, UploadStore, public
from pengi.timelines import TimelineOptions

RECORDINGS = "/page/recordings"
WINDOWS_S = (1.0, 2.0, 5.0)
"""Lengths of the windows of a timeline without a tagger, in seconds."""
LONG_S = 60.0
"""For recordings of at least this length, the longest windows are preselected."""
MAX_PAGE_LABELS = 100
MAX_TURNS = 50
HITS = 12

T = TypeVar("T")
Updates: TypeAlias = Iterator[dict[Any, Any]]


class PageModel(Protocol):
    """The methods that the page uses: those of an inference worker, or of a loaded :class:`pengi.engine.Pengi`."""

    @property
    def name(self) -> str: ...

    @property
    def has_tagger(self) -> bool: ...

    def describe(self, audio: str, **options: Unpack[DescribeOptions]) -> Description: ...

    def ask(self, audio: str, question: str, **options: Unpack[WritingOptions]) -> Answer: ...

    def classify(self, audio: str, labels: Sequence[str], **options: Unpack[ClassifyOptions]) -> Classification: ...

    def embed(self, audio: str, **options: Unpack[ReadingOptions]) -> NDArray[np.float32]: ...

    def timeline(self, audio: str, **options: Unpack[TimelineOptions]) -> Timeline: ...


@dataclass(frozen=True)
class Components:
    """The components of the page."""

    upload: Any
    notice: Any
    recording: Any
    """The column that is hidden until there is a recording."""
    token: Any
    sound: Any
    description: Any
    window: Any
    stretches: Any
    turns: Any
    talk: Any
    question: Any
    ranking: Any
    tabs: Any
    found: Any
    hits: Any
    similar: Any
    examples: dict[Path, Any]
    suggestions: dict[str, Any]
    ask: Any
    time: Any
    labels: Any
    classify: Any
    query: Any
    search: Any

    def changed_by_loading(self) -> list[Any]:
        """The components that a new recording changes."""
        return [
            *(self.upload, self.notice, self.recording, self.token, self.sound, self.description, self.window),
            *(self.stretches, self.turns, self.talk, self.ranking, self.tabs, self.similar),
        ]


class Actions:
    """The actions of one page; the state of a visitor is in the components.

    Args:
        model: answers about recordings.
        collection: an index to search, or None.
        store: the recordings that are open.
        parts: the components of the page.
    """

    def __init__(self, model: PageModel, collection: Collection | None, store: UploadStore, parts: Components) -> None:
        self.model = model
        self.collection = collection
        self.store = store
        self.parts = parts
        self._notices = itertools.count(1)

    def load(self, upload: str | None, previous: str | None) -> Updates:
        """An uploaded or recorded file."""
        if upload is not None:
            yield from self._open(lambda: self.store.add(Path(upload)), previous)

    def example(self, path: Path) -> Callable[[str | None], Updates]:
        """The action that opens a recording of the package."""

        def action(previous: str | None) -> Updates:
            yield from self._open(lambda: self.store.add_in_place(path), previous)

        return action

    def open_hit(self, found: list[Hit], previous: str | None, event: gr.EventData) -> Updates:
        """Open a search result and play it from the position of the hit. Only its index in this visitor's list of
        results comes from the network, never a path."""
        index = event._data.get("index") if isinstance(event._data, dict) else None
        if type(index) is int and 0 <= index < len(found):
            hit = found[index]
            yield from self._open(lambda: self.store.add_in_place(Path(hit.path)), previous, hit.start_s)

    def ask(self, token: str | None, turns: list[Turn], question: str) -> Updates:
        """Show a question at once, and then its answer."""
        parts, question = self.parts, question.strip()
        if not question:
            yield {parts.notice: self._notice("write a question first")}
            return
        before = turns[-MAX_TURNS:]
        yield {parts.talk: views.talk([*before, Turn(question)]), parts.question: "", parts.notice: ""}
        try:
            answer = self._run(self.store.get(token), lambda path: self.model.ask(path, question, explain=True))
        except PengiError as error:
            yield {
                parts.talk: views.talk(before),
                parts.question: question,
                parts.notice: self._notice(str(error)),
            }
            return
        after = [*before, Turn(question, answer.text, answer.confidence, answer.explanation)]
        yield {parts.turns: after, parts.talk: views.talk(after)}

    def suggested(self, question: str) -> Callable[[str | None, list[Turn]], Updates]:
        """The action that asks a suggested question."""

        def action(token: str | None, turns: list[Turn]) -> Updates:
            yield from self.ask(token, turns, question)

        return action

    def timeline(self, token: str | None, window_s: float) -> Updates:
        """The timeline: events of detected tags, or named windows without a tagger."""
        yield from self._shown(self.parts.stretches, lambda: self._stretches(token, window_s))

    def _stretches(self, token: str | None, window_s: float) -> str:
        if self.model.has_tagger:
            recording = self.store.get(token)
            return views.stretches(self._run(recording, self.model.timeline), recording.name)
        if window_s not in WINDOWS_S:
            raise InputError(f"stretches can be {', '.join(f'{window:g}' for window in WINDOWS_S)} s long")
        length_s = float(window_s)
        recording = self.store.get(token)
        timeline = self._run(recording, lambda path: self.model.timeline(path, window_s=length_s, hop_s=length_s))
        return views.stretches(timeline, recording.name)

    def classify(self, token: str | None, text: str) -> Updates:
        """Custom labels, separated by commas or lines."""
        yield from self._shown(self.parts.ranking, lambda: self._ranking(token, text))

    def _ranking(self, token: str | None, text: str) -> str:
        labels = [label for part in text.replace("\n", ",").split(",") if (label := part.strip())]
        if not labels:
            raise InputError("write some labels first, separated by commas")
        if len(labels) > MAX_PAGE_LABELS:
            raise InputError(f"at most {MAX_PAGE_LABELS} labels can be tried at a time, not {len(labels)}")
        return views.ranking(self._run(self.store.get(token), lambda path: self.model.classify(path, labels)))

    def search(self, text: str) -> Updates:
        """Recordings of the collection by words."""
        if not text.strip():
            yield {self.parts.notice: self._notice("write what to look for first")}
            return
        yield from self._search(lambda: self._collection().search(text.strip(), limit=HITS))

    def search_like(self, token: str | None) -> Updates:
        """Recordings of the collection that sound like the one that is open."""
        yield from self._search(lambda: self._similar(token))

    def _similar(self, token: str | None) -> list[Hit]:
        vector_D = self._run(self.store.get(token), self.model.embed)
        return self._collection().search(like=vector_D, limit=HITS)

    def _collection(self) -> Collection:
        assert self.collection is not None  # without a collection the page has no search
        return self.collection

    def _search(self, search: Callable[[], list[Hit]]) -> Updates:
        parts = self.parts
        yield {parts.hits: views.WAITING_HTML, parts.notice: ""}
        try:
            found = search()
        except PengiError as error:
            yield {parts.hits: "", parts.found: [], parts.notice: self._notice(str(error))}
            return
        yield {parts.hits: views.hits(found), parts.found: found}

    def _shown(self, part: Any, answer: Callable[[], str]) -> Updates:
        yield {part: views.WAITING_HTML, self.parts.notice: ""}
        try:
            yield {part: answer()}
        except PengiError as error:
            yield {part: "", self.parts.notice: self._notice(str(error))}

    def _open(
        self, opened: Callable[[], StoredRecording], previous: str | None, start_s: float | None = None
    ) -> Updates:
        """Show the picture of a recording, then its description, and remove the answers about the previous one."""
        parts = self.parts
        try:
            recording = opened()
            picture = self._run(recording, lambda path: draw(path, recording.info.duration_s))
        except PengiError as error:
            yield {parts.upload: None, parts.notice: self._notice(str(error))}
            return
        self.store.discard(previous)
        yield {
            parts.upload: None,
            parts.notice: "",
            parts.recording: gr.Column(visible=True),
            parts.token: recording.token,
            parts.sound: views.sound(recording, picture, f"{RECORDINGS}/{recording.token}".lstrip("/"), start_s),
            parts.description: views.WAITING_HTML,
            parts.window: WINDOWS_S[-1] if picture.duration_s >= LONG_S else WINDOWS_S[0],
            parts.stretches: "",
            parts.turns: [],
            parts.talk: views.talk([]),
            parts.ranking: "",
            parts.tabs: gr.Tabs(selected="recording"),
            parts.similar: gr.Button(visible=True),
        }
        try:
            description = self._run(recording, lambda path: self.model.describe(path, explain=True))
            update = {parts.description: views.description(description)}
        except PengiError as error:
            update = {parts.description: "", parts.notice: self._notice(str(error))}
        if recording.token in self.store:  # unless the visitor has opened another one in the meantime
            yield update

    def _notice(self, message: str) -> str:
        return views.notice(message, next(self._notices))

    def _run(self, recording: StoredRecording, work: Callable[[str], T]) -> T:
        """Process a recording; messages contain the visitor's name of the file."""
        try:
            return work(str(recording.path))
        except PengiError as error:
            raise PengiError(public(str(error), recording.path, recording.name)) from error
