"""The Model Context Protocol, spoken by the official client: in this process, and to ``pengi mcp`` as a process."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult

from helpers import tiny_model
from helpers.commands import complaint, invoke
from pengi import checkpoint
from pengi.errors import InputError
from pengi.results import Answer, Classification, Description, Event, LabelScore, Segment, Tags, Timeline, Transcript
from pengi.retrieval import Hit
from pengi.serving.agents import Folders, create_server

PATIENCE_S = 120.0
READING = {"describe", "ask", "tags", "timeline", "transcribe", "classify"}


class AgentsEngine:
    """Answers with the name of the recording and what it was asked."""

    def describe(self, audio: Path, *, explain: bool) -> Description:
        return Description(audio.name, (Event("rain", 0.5),), 2.0)

    def ask(self, audio: Path, question: str, *, explain: bool) -> Answer:
        return Answer(question, f"{question} of {audio.name}", 0.25)

    def tags(self, audio: Path, *, threshold: float | None, labels: list[str] | None, top: int | None) -> Tags:
        raise InputError("there is no tag 'zzz'; classify takes any label")

    def timeline(
        self, audio: Path, *, threshold: Any, labels: Any, min_duration_s: float | None, merge_gap_s: float | None
    ) -> Timeline:
        asked = f"{threshold} {labels} {min_duration_s} {merge_gap_s}"
        return Timeline((Segment(0.0, 1.5, asked, 0.5),), 2.0, notes=("Half of it is missing.",))

    def transcribe(self, audio: Path) -> Transcript:
        return Transcript("", (), 2.0)

    def classify(
        self, audio: Path, labels: list[str], *, none: bool | float, multi_label: bool, top: int | None
    ) -> Classification:
        scores = tuple(LabelScore(label, 1 / len(labels), float(none) if multi_label else None) for label in labels)
        return Classification("likelihood", scores[:top])

    def embed(self, audio: Path) -> Any:
        return np.ones(2, np.float32)


class AgentsIndex:
    """An index that finds what it is asked for."""

    def search(self, text: str | None, like: Any, where: str | None, limit: int) -> list[Hit]:
        return [Hit("/night/rain.wav", 0.0, 10.0, f"{text} {like is not None} {where}", 1.0, 20.0, ("rain",))][:limit]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder with two recordings, a link out of it, and a file beside it."""
    folder = tmp_path / "recordings"
    (folder / "night").mkdir(parents=True)
    for name in ("day.wav", "night/owl.flac", "notes.txt"):
        (folder / name).write_bytes(b"content")
    (tmp_path / "secret.wav").write_bytes(b"content")
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    return folder


@pytest.fixture
def call(recordings: Path) -> Callable[..., CallToolResult]:
    """Call one tool of a server for that folder."""
    server = create_server(lambda: AgentsEngine(), Folders([recordings]), AgentsIndex())  # type: ignore[arg-type,return-value]

    async def called(name: str, arguments: dict[str, Any]) -> CallToolResult:
        async with Client(server) as client:
            return await client.call_tool(name, arguments)

    return lambda name, **arguments: asyncio.run(called(name, arguments))


def sentence(result: CallToolResult) -> str:
    """What an agent reads of a failed call."""
    assert result.is_error
    text: str = result.content[0].text  # type: ignore[union-attr]
    return text


def content(result: CallToolResult) -> dict[str, Any]:
    """What a call has found."""
    assert result.structured_content is not None
    return result.structured_content


def test_results_are_structured(call: Callable[..., CallToolResult]) -> None:
    described = call("describe", path="day.wav")
    assert described.structured_content == {
        "text": "day.wav",
        "events": [{"label": "rain", "confidence": 0.5}],
        "duration_s": 2.0,
        "explanation": None,
        "notes": [],
    }
    assert json.loads(described.content[0].text)["text"] == "day.wav"  # type: ignore[union-attr]
    timeline = content(call("timeline", path="night/owl.flac", threshold=0.25))
    assert timeline["segments"] == [{"start_s": 0.0, "end_s": 1.5, "text": "0.25 None None None", "confidence": 0.5}]
    assert timeline["notes"] == ["Half of it is missing."]
    answer = content(call("ask", path="day.wav", question="what?"))
    assert answer["text"] == "what? of day.wav"
    assert call("transcribe", path="day.wav").structured_content == {
        "text": "", "segments": [], "duration_s": 2.0, "notes": []
    }  # fmt: skip
    chosen = content(call("classify", path="day.wav", labels=["rain", "wind"]))
    assert chosen["scores"][0] == {"label": "rain", "probability": 0.5, "independent": None}


def test_timelines_and_labels_have_the_options_of_the_command_line(call: Callable[..., CallToolResult]) -> None:
    options = {"threshold": {"*": 0.5, "rain": 0.75}, "labels": ["rain", "a kettle"], "min_duration_s": 1}
    timeline = content(call("timeline", path="day.wav", **options, merge_gap_s=2.5))
    assert timeline["segments"][0]["text"] == "{'*': 0.5, 'rain': 0.75} ['rain', 'a kettle'] 1.0 2.5"
    assert "less than or equal to 1" in sentence(call("timeline", path="day.wav", threshold={"rain": 2}))
    labels = {"path": "day.wav", "labels": ["rain", "wind"], "multi_label": True, "top": 1}
    for given, expected in (({}, 0.0), ({"none": True}, 1.0), ({"none": True, "none_threshold": 0.25}, 0.25)):
        chosen = content(call("classify", **labels, **given))
        assert chosen["scores"] == [{"label": "rain", "probability": 0.5, "independent": expected}]


def test_the_recordings_of_the_folder_are_listed_by_pattern(
    call: Callable[..., CallToolResult], recordings: Path
) -> None:
    everything = content(call("list_recordings"))
    assert everything["total"] == 2
    assert everything["recordings"][0] == str(recordings / "day.wav")
    flac = call("list_recordings", pattern="*.flac").structured_content
    assert flac == {"recordings": [str(recordings / "night/owl.flac")], "total": 1}
    assert call("list_recordings", limit=1).structured_content == {
        "recordings": [str(recordings / "day.wav")], "total": 2
    }  # fmt: skip


@pytest.mark.parametrize("path", ["../secret.wav", "link.wav", "/etc/passwd", "night", "no such.wav", "a" * 5000, "\0"])
def test_only_files_of_the_folders_are_read(call: Callable[..., CallToolResult], path: str) -> None:
    for tool in ("describe", "timeline", "transcribe"):
        assert "there is no recording '" in sentence(call(tool, path=path))
    assert "there is no recording '" in sentence(call("search", like=path))


def test_absolute_paths_of_recordings_are_read(call: Callable[..., CallToolResult], recordings: Path) -> None:
    described = content(call("describe", path=str(recordings / "night/owl.flac")))
    assert described["text"] == "owl.flac"


def test_a_mistake_is_a_sentence_that_the_agent_can_read(call: Callable[..., CallToolResult]) -> None:
    assert "there is no tag 'zzz'; classify takes any label" in sentence(call("tags", path="day.wav", labels=["zzz"]))
    assert "threshold" in sentence(call("timeline", path="day.wav", threshold=7))


def test_search_finds_by_words_and_by_sound(call: Callable[..., CallToolResult]) -> None:
    found = content(call("search", query="rain", like="day.wav", where="duration_s > 5"))
    assert found["hits"][0]["text"] == "rain True duration_s > 5"
    assert found["hits"][0]["tags"] == ["rain"]


def test_without_an_index_there_is_no_search(recordings: Path) -> None:
    async def names() -> set[str]:
        async with Client(create_server(lambda: AgentsEngine(), Folders([recordings]))) as client:  # type: ignore[arg-type,return-value]
            tools = (await client.list_tools()).tools
            assert all(tool.output_schema and tool.description and "\n" not in tool.description for tool in tools)
            assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
            return {tool.name for tool in tools}

    assert asyncio.run(names()) == READING | {"list_recordings"}


def test_the_tools_are_served_over_http(recordings: Path) -> None:
    server = create_server(lambda: AgentsEngine(), Folders([recordings]))  # type: ignore[arg-type,return-value]
    http = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="warning"))

    async def described(url: str) -> CallToolResult:
        async with Client(url) as client:
            return await client.call_tool("describe", {"path": "day.wav"})

    with socket.create_server(("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=http.run, args=([bound],))
        thread.start()
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/mcp"
        try:
            found = content(asyncio.run(described(url)))
            foreign = httpx.post(url, json={}, headers={"Host": "example.org"})
        finally:
            http.should_exit = True
            thread.join(PATIENCE_S)
    assert found["text"] == "day.wav"
    assert foreign.status_code == 421


def test_the_command_serves_over_standard_input_and_output(tmp_path: Path, tone: Path) -> None:
    checkpoint.save(tiny_model(), tmp_path / "tiny", card="# tiny\n")
    arguments = ["-m", "pengi", "mcp", str(tone.parent), "--model", str(tmp_path / "tiny")]
    command = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))

    async def timeline() -> CallToolResult:
        async with Client(command, read_timeout_seconds=PATIENCE_S) as client:
            return await client.call_tool("timeline", {"path": tone.name})

    found = content(asyncio.run(timeline()))
    assert found["duration_s"] == 1.0
    assert found["segments"][0]["start_s"] == 0.0


def test_mistakes_of_the_command_are_a_sentence(tmp_path: Path) -> None:
    for arguments, said in (
        ([tmp_path / "none"], "there is no folder"),
        ([tmp_path, "--model", "nonsense"], "there is no model named 'nonsense'"),
        ([tmp_path, "--index", tmp_path / "none"], "there is no index at"),
    ):
        assert said in complaint(invoke("mcp", *arguments))
