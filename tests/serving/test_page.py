"""The page without a browser: pictures, the store, markup, actions, and what is open to the network."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
import soundfile
import torch
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from helpers import RATE, noise, tiny_model, tone
from helpers.serving import running
from pengi import Pengi
from pengi.audio.decode import stream
from pengi.audio.pictures import (
    BANDS,
    IMAGE_COLUMNS,
    RANGE_DB,
    draw,
    frequency_ticks,
    spectrogram_png,
    time_ticks,
    waveform_path,
)
from pengi.errors import AudioError, InputError
from pengi.results import (
    Answer,
    Classification,
    Description,
    Event,
    Explanation,
    LabelScore,
    Segment,
    TagScore,
    Timeline,
)
from pengi.serving import page_views as views
from pengi.serving.inference_worker import BusyError, InferenceWorker
from pengi.serving.page import build, mount
from pengi.serving.page_actions import Actions, Components
from pengi.serving.page_guard import EVENT_BYTES, JOIN, MAX_UPLOADS, UPLOAD
from pengi.serving.settings import ServingSettings
from pengi.serving.upload_store import StoreLimits, UploadStore, make_room

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Stub:
    """Decodes what it is given, as a worker does, and has the same answers for everything."""

    name = "stub"
    has_tagger = False

    def __init__(self) -> None:
        self.busy = False
        self.timelines: list[tuple[float, float]] = []

    def describe(self, audio: Any, *, explain: bool = False) -> Description:
        return Description("a dog barks", (Event("dog barking", 0.75),), self._run(audio))

    def ask(self, audio: Any, question: str, *, explain: bool = False) -> Answer:
        self._run(audio)
        tags = (TagScore("dog <barking>", "sound", 0.75, "sure", ((0.0, 1.0),)),)
        why = Explanation(tags, "Sit & stay.", ("Level -20 dBFS.",), "[audio: 8 embeddings]<|im_start|>user")
        return Answer(question, "yes", 0.5, why if explain else None)

    def classify(self, audio: Any, labels: list[str]) -> Classification:
        self._run(audio)
        return Classification("likelihood", tuple(LabelScore(label, 1 / len(labels)) for label in labels))

    def timeline(self, audio: Any, *, window_s: float, hop_s: float) -> Timeline:
        self.timelines.append((window_s, hop_s))
        return Timeline((Segment(0.0, 1.0, "dog barking", 0.9), Segment(1.0, 2.0, "silence", 1.0)), self._run(audio))

    def embed(self, audio: Any) -> Any:
        return np.full(4, self._run(audio), np.float32)

    def _run(self, audio: Any) -> float:
        if self.busy:
            raise BusyError(7)
        return sum(len(block) for block in stream(audio, RATE)) / RATE


class Found:
    """A collection that finds two places, one of them twice."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[dict[str, Any]] = []

    def search(self, text: str | None = None, like: Any = None, limit: int = 10) -> list[Any]:
        self.asked.append({"text": text, "like": like, "limit": limit})
        hit = SimpleNamespace(path=str(self.path), start_s=1.0, end_s=2.0, text="rain & <wind>", score=0.0325)
        return [hit, hit]


@pytest.fixture
def store() -> UploadStore:
    return UploadStore()


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "yard <1>.wav"
    soundfile.write(path, tone(2.0) + noise(2.0, level=0.01), RATE)
    return path


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def actions(stub: Stub, store: UploadStore) -> Actions:
    """The actions of a page without a collection."""
    return Actions(stub, None, store, parts())


def parts() -> Components:
    """Components that are known by their names only."""
    named: dict[str, Any] = {name: name for name in Components.__dataclass_fields__}
    return Components(**named)


def last(updates: Any) -> dict[str, Any]:
    """What all updates come to."""
    seen: dict[str, Any] = {}
    for update in updates:
        seen |= update
    return seen


def opened(actions: Actions, path: Path) -> str:
    token = last(actions.load(str(path), None))["token"]
    assert isinstance(token, str)
    return token


@pytest.mark.parametrize("hertz", [250, 1000, 4000])
def test_a_tone_is_drawn_at_its_frequency(hertz: int) -> None:
    picture = draw((tone(3.0, hertz), RATE), 3.0)
    low, high = frequency_ticks()[0], frequency_ticks()[-1]
    assert picture.level_MC.shape == (BANDS, len(picture.low_C))
    loudest = picture.level_MC.mean(1).argmax() / BANDS
    mel = 2595 * np.log10(1 + np.array([low[0], high[0], hertz]) / 700)
    expected = low[1] + (mel[2] - mel[0]) / (mel[1] - mel[0]) * (high[1] - low[1])
    assert abs(loudest - expected) < 0.02
    assert picture.level_MC.max() == pytest.approx(0.0, abs=1e-3)
    assert picture.level_MC.min() >= -RANGE_DB


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 200_000), seed=st.integers(0, 9))
def test_every_sample_is_in_the_waveform(length: int, seed: int) -> None:
    samples = np.random.default_rng(seed).uniform(-1, 1, length).astype(np.float32)
    picture = draw((samples, RATE), length / RATE)
    assert picture.duration_s == length / RATE
    assert 1 <= len(picture.low_C) <= IMAGE_COLUMNS
    assert picture.level_MC.shape[1] == len(picture.low_C)
    assert picture.low_C.min() in (samples.min(), min(samples.min(), 0.0))  # the last column may be filled with zeros
    assert picture.high_C.max() in (samples.max(), max(samples.max(), 0.0))


def test_a_long_recording_has_as_many_columns_as_the_screen() -> None:
    samples = noise(300.0, level=0.05)
    samples[150 * RATE : 151 * RATE] += tone(1.0, 1000.0)
    picture = draw((samples, RATE), 300.0)
    assert len(picture.low_C) == IMAGE_COLUMNS
    assert picture.high_C.argmax() / IMAGE_COLUMNS == pytest.approx(0.5, abs=0.01)


def test_silence_can_be_drawn() -> None:
    picture = draw((np.zeros(RATE, np.float32), RATE), 1.0)
    assert np.isfinite(picture.level_MC).all()
    assert waveform_path(picture, 64).startswith("M0 31.5")
    assert spectrogram_png(picture).startswith("data:image/png;base64,iVBOR")


@pytest.mark.parametrize("duration_s", [0.02, 0.9, 5.0, 59.0, 600.0, 7_000.0, 36_000.0])
def test_time_ticks_are_few_and_within_the_recording(duration_s: float) -> None:
    ticks = time_ticks(duration_s)
    assert ticks[0] == 0
    assert ticks[-1] <= duration_s
    assert len(ticks) <= 9


def test_nothing_that_is_not_ours_becomes_markup() -> None:
    evil = '<img src=x onerror="alert(1)">'
    shown = [
        views.description(Description(evil, (Event(evil, 0.5),), 1.0)),
        views.talk([views.Turn(evil, evil, 0.5)]),
        views.stretches(Timeline((Segment(0.0, 1.0, evil, 0.5),), 1.0)),
        views.ranking(Classification("likelihood", (LabelScore(evil, 1.0),))),
        views.notice(evil),
        views.header(evil),
        views.hits([SimpleNamespace(path=evil, start_s=0.0, end_s=1.0, text=evil, score=0.1)]),
    ]
    assert not [text for text in shown if "<img" in text]


def test_every_label_has_a_lane_with_its_name_once() -> None:
    rain, bark, horn = Segment(0.0, 9.0, "rain", 0.9), Segment(2.0, 3.0, "dog", 0.5), Segment(2.5, 4.0, "horn", 0.5)
    again = Segment(5.0, 5.1, "rain", 0.5)
    assert views.lanes([rain, bark, horn, again]) == [("rain", [rain, again]), ("dog", [bark]), ("horn", [horn])]
    text = views.stretches(Timeline((rain, bark, horn, again), 10.0))
    assert text.count('class="pg-lane"') == 3
    names = re.findall(r'class="pg-name" dir="auto" title="(\w+)">(\w+)</span>', text)
    assert names == [("rain", "rain"), ("dog", "dog"), ("horn", "horn")]
    bars = re.findall(r'aria-label="([^"]*)" style="([^"]*)">(.*?)</button>', text)
    assert bars[2] == ("Play 00:02.0 – 00:03.0: dog, 50%", "left:20.000%;width:10.000%", "")
    assert text.count("<li>") == 4
    assert "No event was detected" in views.stretches(Timeline((), 10.0))


def test_of_too_many_labels_the_shortest_share_a_lane() -> None:
    many = [Segment(0.0, number + 1.0, str(number), 0.5) for number in range(40)]
    *named, (name, others) = views.lanes(many)
    assert [label for label, _ in named] == [str(number) for number in range(40 - views.MAX_LANES, 40)]
    assert name == views.OTHERS
    # The longest is drawn first, so the shorter ones are above it.
    assert others == many[: 40 - views.MAX_LANES][::-1]


def test_a_timeline_can_be_filtered_and_saved_as_files() -> None:
    events = (Segment(0.0, 9.0, "rain", 0.92), Segment(2.5, 4.0, 'a "horn" & <bell>', 0.57))
    text = views.stretches(Timeline(events, 10.0), "my night.tar.ogg")
    assert text.count('data-label="rain" data-confidence="0.920"') == 2
    assert "<option>rain</option>" in text
    assert 'min="0.55" max="1" step="0.05" value="0.55"' in text
    saved = dict(re.findall(r'download="([^"]*)" href="data:text/plain;charset=utf-8,([^"]*)"', text))
    assert list(saved) == ["my night.tar.csv", "my night.tar.txt", "my night.tar.selections.txt", "my night.tar.srt"]
    assert unquote(saved["my night.tar.txt"]) == ('0.000000\t9.000000\train\n2.500000\t4.000000\ta "horn" & <bell>\n')
    alone = views.stretches(Timeline((Segment(0.0, 9.0, "rain", 0.99),), 10.0))
    assert "data-filter" not in alone


def test_what_an_answer_was_given_from_is_folded_up(actions: Actions, wav: Path) -> None:
    seen = last(actions.ask(opened(actions, wav), [], "is there a dog?"))["talk"]
    assert "<details" in seen
    assert "dog &lt;barking&gt;</b> sure, 75%: 0.0–1.0 s" in seen
    assert "Said: Sit &amp; stay." in seen
    assert "[audio: 8 embeddings]&lt;|im_start|&gt;user" in seen
    assert views.explained(None) == ""


def test_a_model_with_a_tagger_needs_no_windows(store: UploadStore, wav: Path) -> None:
    class Tagging(Stub):
        has_tagger = True

        def timeline(self, audio: Any, **options: Any) -> Timeline:
            assert not options
            return Timeline((Segment(0.0, 2.0, "rain", 0.9), Segment(1.0, 2.0, "dog", 0.5)), 2.0)

    actions = Actions(Tagging(), None, store, parts())
    assert 'data-seek="1.000" data-until="2.000"' in last(actions.timeline(opened(actions, wav), 1.0))["stretches"]


def test_a_long_timeline_lists_part_and_shows_all_as_bars() -> None:
    segments = tuple(Segment(float(s), s + 1.0, f"event {s}", 0.5) for s in range(views.MAX_ROWS + 5))
    text = views.stretches(Timeline(segments, float(len(segments))))
    assert text.count("<li>") == views.MAX_ROWS
    assert text.count("data-seek") == 2 * views.MAX_ROWS + 5
    assert "5 more events" in text


def test_a_hit_does_not_show_the_folder_of_the_collection() -> None:
    hit = SimpleNamespace(path="/srv/private/field/owl.wav", start_s=0.0, end_s=1.0, text="owl", score=0.1)
    assert "field/owl.wav" in views.hits([hit])
    assert "private" not in views.hits([hit])


def test_the_store_keeps_uploads(store: UploadStore, wav: Path) -> None:
    recording = store.add(wav)
    wav.unlink()
    assert store.get(recording.token) == recording
    assert recording.playable.read_bytes()[:4] == b"RIFF"
    assert recording.media_type == "audio/wav"
    store.discard(recording.token)
    assert not recording.path.exists()
    with pytest.raises(InputError, match="no longer kept"):
        store.get(recording.token)


def test_the_store_makes_a_copy_of_what_browsers_do_not_play(store: UploadStore, tmp_path: Path) -> None:
    path = tmp_path / "tone.aiff"
    soundfile.write(path, tone(1.0), RATE)
    recording = store.add(path)
    assert recording.media_type == "audio/mpeg"
    assert soundfile.info(recording.playable).duration == pytest.approx(1.0, abs=0.1)
    store.discard(recording.token)
    assert not recording.playable.exists()


def test_the_store_leaves_files_of_others_alone(store: UploadStore, wav: Path) -> None:
    recording = store.add_in_place(wav)
    assert recording.size() == 0
    store.discard(recording.token)
    assert wav.exists()


def test_the_store_removes_what_is_not_used(wav: Path) -> None:
    now = [0.0]
    store = UploadStore(StoreLimits(max_idle_s=60.0), clock=lambda: now[0])
    first, second = store.add(wav), store.add(wav)
    now[0] = 50.0
    store.get(second.token)
    now[0] = 70.0
    assert store.get(second.token)
    assert not first.path.exists()


def test_the_store_leaves_nothing_behind(wav: Path) -> None:
    store = UploadStore()
    folder = store.add(wav).path.parent
    del store
    assert not folder.exists()


def test_the_store_is_bounded(wav: Path) -> None:
    size = wav.stat().st_size
    store = UploadStore(StoreLimits(store_bytes=2 * size + 10))
    tokens = [store.add(wav).token for _ in range(5)]
    assert sum(path.stat().st_size for path in store.folder.iterdir() if path.is_file()) == 2 * size
    assert store.get(tokens[-1])


def test_the_store_refuses_what_is_too_long_and_what_is_not_audio(tmp_path: Path, wav: Path) -> None:
    store = UploadStore(StoreLimits(duration_s=1.0))
    with pytest.raises(AudioError, match=r"^'yard <1>.wav' lasts"):
        store.add(wav)
    page = tmp_path / "page.wav"
    page.write_text("<html><script>alert(1)</script></html>" * 20)
    with pytest.raises(AudioError, match=r"^'page.wav' is not audio"):
        store.add(page)
    assert [path.name for path in store.folder.iterdir()] == ["uploads"]


def test_room_is_made_by_the_oldest_files(tmp_path: Path) -> None:
    for index in range(4):
        file = tmp_path / f"folder{index}" / "file"
        file.parent.mkdir()
        file.write_bytes(bytes(100))
        os.utime(file, (index, index))
    assert make_room(tmp_path, 150, 400)
    assert sorted(file.parent.name for file in tmp_path.rglob("file")) == ["folder2", "folder3"]
    assert not make_room(tmp_path, 500, 400)


def test_loading_draws_first_and_describes_then(actions: Actions, wav: Path) -> None:
    updates = list(actions.load(str(wav), None))
    assert "yard &lt;1&gt;.wav" in updates[0]["sound"]
    assert "A dog barks" in updates[-1]["description"]
    assert "75%" in updates[-1]["description"]


def test_a_new_recording_replaces_the_old_one(actions: Actions, store: UploadStore, wav: Path) -> None:
    old = opened(actions, wav)
    new = last(actions.load(str(wav), old))
    assert new["turns"] == []
    assert new["stretches"] == ""
    with pytest.raises(InputError):
        store.get(old)


def test_a_late_description_is_not_shown_for_the_next_recording(actions: Actions, wav: Path) -> None:
    late = actions.load(str(wav), None)
    token = next(late)["token"]
    opened(actions, wav)
    last(actions.load(str(wav), token))
    assert not list(late)


def test_a_bad_recording_is_one_sentence_and_the_old_one_stays(
    actions: Actions, store: UploadStore, wav: Path, bad_files: Any
) -> None:
    old = opened(actions, wav)
    for kind in ("empty", "truncated", "text"):
        seen = last(actions.load(str(bad_files[kind]), old))
        assert set(seen) == {"upload", "notice"}
        assert f"&#x27;{kind}.wav&#x27;" in seen["notice"]
        assert str(bad_files[kind].parent) not in seen["notice"]
    assert store.get(old)


def test_asking(actions: Actions, wav: Path) -> None:
    token = opened(actions, wav)
    first = last(actions.ask(token, [], " Is it raining? "))
    assert [turn.question for turn in first["turns"]] == ["Is it raining?"]
    second = last(actions.suggested("Who speaks?")(token, first["turns"]))
    assert [turn.text for turn in second["turns"]] == ["yes", "yes"]
    assert "Write a question first" in last(actions.ask(token, [], "  "))["notice"]
    assert "no longer kept here" in last(actions.ask("stale", [], "Who?"))["notice"]


def test_a_busy_worker_is_an_error_and_the_question_comes_back(actions: Actions, stub: Stub, wav: Path) -> None:
    token = opened(actions, wav)
    stub.busy = True
    seen = last(actions.ask(token, [], "Who?"))
    assert "The server is busy; try again in 7 seconds." in seen["notice"]
    assert seen["question"] == "Who?"
    assert "turns" not in seen


def test_timeline_and_labels(actions: Actions, stub: Stub, wav: Path) -> None:
    token = opened(actions, wav)
    assert 'data-seek="1.000" data-until="2.000"' in last(actions.timeline(token, 2))["stretches"]
    assert stub.timelines == [(2.0, 2.0)]
    assert "Stretches can be" in last(actions.timeline(token, 1e-9))["notice"]
    assert last(actions.classify(token, "rain,\nsiren, ,dog"))["ranking"].count("<li>") == 3
    assert "Write some labels first" in last(actions.classify(token, " , "))["notice"]
    assert "At most 100" in last(actions.classify(token, ",".join(map(str, range(101)))))["notice"]


def test_a_silent_recording_says_so_in_every_tab(store: UploadStore, tmp_path: Path) -> None:
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.full(RATE, 0.1), RATE)
    worker = InferenceWorker(Pengi(tiny_model(), "tiny", torch.device("cpu")), ServingSettings())
    try:
        actions = Actions(worker, None, store, parts())
        updates = last(actions.load(str(path), None))
        assert "Silence." in updates["description"]
        token = updates["token"]
        assert "The recording is silent." in last(actions.ask(token, [], "is there a dog?"))["talk"]
        assert "silence" in last(actions.timeline(token, 1.0))["stretches"]
        ranking = last(actions.classify(token, "dog, rain"))["ranking"]
        assert "The recording is silent" in ranking
        assert ranking.count("0%</span>") == 2
        assert "The recording is silent" not in last(actions.classify(token, "dog, silence"))["ranking"]
    finally:
        worker.close()


def test_searching_and_opening_what_was_found(store: UploadStore, wav: Path) -> None:
    collection = Found(wav)
    actions = Actions(Stub(), collection, store, parts())
    seen = last(actions.search(" rain "))
    assert "rain &amp; &lt;wind&gt;" in seen["hits"]
    opened_hit = last(actions.open_hit(seen["found"], None, SimpleNamespace(_data={"index": 1})))
    assert 'data-start="1.000"' in opened_hit["sound"]
    assert store.get(opened_hit["token"]).path == wav
    assert "found" in last(actions.search_like(opened_hit["token"]))
    assert [query["text"] for query in collection.asked] == ["rain", None]
    assert collection.asked[1]["like"].tolist() == [2.0] * 4


@pytest.mark.parametrize(
    "data", [{"index": 2}, {"index": -1}, {"index": "0"}, {"index": True}, {"path": "x"}, None, []]
)
def test_only_what_was_found_can_be_opened(store: UploadStore, wav: Path, data: Any) -> None:
    actions = Actions(Stub(), Found(wav), store, parts())
    assert not list(actions.open_hit(Found(wav).search(), None, SimpleNamespace(_data=data)))


def test_build_needs_no_server() -> None:
    blocks = build(Stub(), None, UploadStore())
    assert blocks.analytics_enabled is False


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = FastAPI()
    mount(app, Stub(), limits=StoreLimits(upload_bytes=200_000))
    with TestClient(app) as client:
        yield client


def uploads(client: TestClient) -> str:
    """The folder of uploads, as an upload tells it."""
    files = {"files": ("a.wav", b"RIFF")}
    return str(Path(client.post(UPLOAD, files=files).json()[0]).parents[1])


def test_the_page_is_there_and_asks_no_other_host(client: TestClient) -> None:
    text = client.get("/").text
    assert "Pengi" in text
    assert "fonts.googleapis" not in text
    assert "cdn." not in text


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=http://127.0.0.1/",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/gradio_api/deep_link",
        "/gradio_api/runs",
        "/gradio_api/vibe-code",
        "/gradio_api/app_id",
        "/gradio_api/dev/reload",
        "/monitoring",
        "/custom_component/1/client/component/index.js",
        "/page/recordings/guess",
    ],
)
def test_everything_else_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "path", ["/gradio_api/run/load", "/gradio_api/api/load", "/gradio_api/call/load", "/gradio_api/process_recording",
             "/gradio_api/component_server", "/gradio_api/vibe-edit", "/login"]
)  # fmt: skip
def test_nothing_else_can_be_posted_to(client: TestClient, path: str) -> None:
    assert client.post(path, json={}).status_code == 404


def test_static_files_cannot_be_climbed_out_of(client: TestClient) -> None:
    for path in ("/static/..%2f..%2f..%2fpyproject.toml", "/assets/%2e%2e/%2e%2e/__init__.py", "/static//etc/passwd"):
        assert client.get(path).status_code in (400, 403, 404)


def joining(path: Any) -> dict[str, Any]:
    return {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, None], "fn_index": 0, "session_hash": "s"}


@pytest.mark.parametrize("path", ["/etc/passwd", "http://127.0.0.1/a.wav", "{uploads}/../../x.wav", "a\0b", 7, ["x"]])
def test_an_event_may_not_name_files_of_the_machine(client: TestClient, path: Any) -> None:
    if isinstance(path, str):
        path = path.replace("{uploads}", uploads(client))
    reply = client.post(JOIN, json=joining(path))
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == "the request names a file that was not uploaded"


def test_an_event_may_name_an_upload(client: TestClient) -> None:
    path = client.post(UPLOAD, files={"files": ("a.wav", b"RIFF")}).json()[0]
    assert client.post(JOIN, json=joining(path)).status_code == 200


def test_events_are_short_json(client: TestClient) -> None:
    assert client.post(JOIN, content=b"x" * (EVENT_BYTES + 1)).status_code == 413
    assert client.post(JOIN, content=b"not json").status_code == 400
    assert client.post(JOIN, content=b"[" * 100_000).status_code == 400
    assert client.post(JOIN, content=iter([b"{}"])).status_code == 411


def test_uploads_are_bounded_one_by_one_and_together(client: TestClient) -> None:
    assert client.post(UPLOAD, files={"files": ("a.wav", bytes(300_000))}).status_code == 413
    folder = Path(uploads(client))
    for seed in range(2 * MAX_UPLOADS):
        assert client.post(UPLOAD, files={"files": ("a.wav", bytes([seed]) * 190_000)}).status_code == 200
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= MAX_UPLOADS * 200_000 + 65_536


def test_upload_names_are_no_paths(client: TestClient) -> None:
    folder = Path(uploads(client))
    for name in ("../../evil.wav", "/etc/evil.wav", "..\\evil.wav"):
        path = Path(client.post(UPLOAD, files={"files": (name, b"RIFF" + name.encode())}).json()[0])
        assert path.resolve().is_relative_to(folder)


def test_recordings_are_served_in_ranges(tmp_path: Path, wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[UploadStore] = []
    monkeypatch.setattr("pengi.serving.page.UploadStore", lambda limits: kept.append(UploadStore(limits)) or kept[0])
    app = mount(FastAPI(), Stub())
    recording = kept[0].add(wav)
    with TestClient(app) as client:
        reply = client.get(f"/page/recordings/{recording.token}", headers={"Range": "bytes=4-7"})
    assert reply.status_code == 206
    assert reply.content == wav.read_bytes()[4:8]
    assert reply.headers["content-type"] == "audio/wav"
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_the_heartbeats_of_open_pages_end_with_the_server() -> None:
    """The browser's connection is held until ``end_page``; without it this test would not end."""
    app = FastAPI()
    app.state.worker = SimpleNamespace(settings=ServingSettings())

    @app.get("/end")
    async def end() -> None:
        app.state.end_page()

    mount(app, Stub())
    with (
        running(app) as (url, _),
        httpx.Client(timeout=60) as client,
        client.stream("GET", f"{url}/gradio_api/heartbeat/session") as reply,
    ):
        lines = reply.iter_lines()
        assert next(lines) == "data: ALIVE"
        client.get(f"{url}/end")
        assert "data: ALIVE" not in list(lines)
