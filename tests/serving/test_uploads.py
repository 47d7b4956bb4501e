"""Recordings as files of a form: each address says what the engine says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from helpers import RATE, noise
from helpers.chat import HUM, RAIN, chat_pengi
from helpers.serving import clip, complaint, encoded, serving
from pengi import Pengi


def post(client: httpx.Client, address: str, content: bytes, name: str = "a.wav", **fields: Any) -> httpx.Response:
    return client.post(f"/v1/{address}", files={"file": (name, content)}, data=fields)


def test_describe(client: httpx.Client, tiny: Pengi) -> None:
    found = post(client, "describe", clip(1)).json()
    expected = tiny.describe(clip(1)).to_dict()
    assert (found["text"], found["duration_s"]) == (expected["text"], expected["duration_s"])
    assert [event["label"] for event in found["events"]] == [event["label"] for event in expected["events"]]
    paper = post(client, "describe", clip(1), style="paper").json()
    assert paper["text"] == tiny.describe(clip(1), style="paper").text != expected["text"]


def test_ask(client: httpx.Client, tiny: Pengi) -> None:
    found = post(client, "ask", clip(1), question="what is it?").json()
    assert (found["question"], found["text"]) == ("what is it?", tiny.ask(clip(1), "what is it?").text)
    assert found["confidence"] == pytest.approx(tiny.ask(clip(1), "what is it?").confidence, rel=1e-3)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["dog", "rain, heavy", "wind"], ["dog", "rain, heavy", "wind"]),
        ("dog, rain , wind", ["dog", "rain", "wind"]),
        (' ["dog", "rain, heavy", "wind"]', ["dog", "rain, heavy", "wind"]),
        ("[dog], [rain], wind", ["[dog]", "[rain]", "wind"]),
    ],
)
def test_classify(client: httpx.Client, tiny: Pengi, labels: Any, names: list[str]) -> None:
    found = post(client, "classify", clip(1), labels=labels, method="generate").json()
    expected = tiny.classify(clip(1), names, method="generate")
    assert [score["label"] for score in found["scores"]] == [score.label for score in expected.scores]
    assert found["scores"][0]["probability"] == pytest.approx(expected.scores[0].probability, rel=1e-3)
    assert len(post(client, "classify", clip(1), labels=labels, top=1).json()["scores"]) == 1


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"none": "true"}, {"none": True}),
        ({"none": "0.9"}, {"none": 0.9}),
        ({"none": "false", "multi_label": "true"}, {"multi_label": True}),
        ({"prompt": "it is {}"}, {"prompt": "it is {}"}),
    ],
)
def test_classify_takes_the_options_of_the_engine(
    client: httpx.Client, tiny: Pengi, fields: dict[str, str], options: dict[str, Any]
) -> None:
    found = post(client, "classify", clip(1), labels="rain, dog", **fields).json()
    expected = tiny.classify(clip(1), ["dog", "rain"], **options)
    assert found["prompt"] == expected.prompt
    for score, wanted in zip(found["scores"], expected.scores, strict=True):
        assert (score["label"], score.get("independent") is None) == (wanted.label, wanted.independent is None)
        assert score["probability"] == pytest.approx(wanted.probability, rel=1e-3)


@pytest.fixture(scope="module")
def chat() -> Iterator[httpx.Client]:
    """A client of a server whose model has a tagger."""
    with serving(chat_pengi()) as client:
        yield client


def test_tags(chat: httpx.Client) -> None:
    content = encoded(np.concatenate([RAIN, HUM]))
    found = post(chat, "tags", content).json()
    assert {tag["label"] for tag in found["tags"]} == {"rain", "hum"}
    assert found["duration_s"] == 10.0
    assert found["tags"][0]["spans"]
    found = post(chat, "tags", content, labels="flute, rain", threshold=0.5, top=2).json()
    assert [(tag["label"], tag["group"], tag["strength"]) for tag in found["tags"]] == [("rain", "sound", "sure")]
    refused = post(chat, "tags", content, labels="unicorn")
    assert refused.status_code == 400
    assert "there is no tag 'unicorn'" in refused.json()["error"]["message"]
    assert post(chat, "tags", content, threshold=2).status_code == 400


def test_timelines_of_tags(chat: httpx.Client) -> None:
    content = encoded(np.concatenate([RAIN, HUM]))
    found = post(chat, "timeline", content, labels=["rain", "hum"], threshold=0.5).json()
    assert [segment["text"] for segment in found["segments"]] == ["rain", "hum"]


def test_a_model_without_a_tagger_says_so(client: httpx.Client) -> None:
    refused = post(client, "tags", clip(1))
    assert refused.status_code == 400
    assert "has no tagger" in refused.json()["error"]["message"]


def test_explanations_come_if_asked_for(chat: httpx.Client) -> None:
    content = encoded(RAIN)
    found = post(chat, "ask", content, question="is there rain?", explain="true").json()["explanation"]
    assert found["prompt"].startswith("<|im_start|>user\nHeard in 5 s: rain (sure, throughout).")
    assert found["tags"][0]["label"] == "rain"
    assert post(chat, "ask", content, question="is there rain?").json()["explanation"] is None
    for address, fields in (("describe", {}), ("classify", {"labels": "rain, unicorn"})):
        assert post(chat, address, content, explain="true", **fields).json()["explanation"]["prompt"]


def test_silence(client: httpx.Client) -> None:
    content = encoded(np.full(RATE, 0.1, np.float32))
    assert post(client, "describe", content).json()["text"] == "Silence."
    assert post(client, "ask", content, question="is there a dog?").json()["text"] == "The recording is silent."
    found = post(client, "classify", content, labels="dog, rain").json()
    assert found["detected"] is False
    assert [score["probability"] for score in found["scores"]] == [0.0, 0.0]
    found = post(client, "classify", content, labels="dog, silence").json()
    assert (found["detected"], found["scores"][0]["label"]) == (True, "silence")
    assert [part["text"] for part in post(client, "timeline", content).json()["segments"]] == ["silence"]


def test_a_float_file_beyond_full_scale_is_read_as_it_is(client: httpx.Client, tiny: Pengi) -> None:
    content = encoded(50 * noise(1.0), subtype="FLOAT")
    assert post(client, "describe", content).json()["text"] == tiny.describe(content).text


def test_embed(client: httpx.Client, tiny: Pengi) -> None:
    found = post(client, "embed", clip(1)).json()["embedding"]
    np.testing.assert_allclose(found, tiny.embed(clip(1)), atol=1e-6)


def test_timeline(client: httpx.Client, tiny: Pengi) -> None:
    content = encoded(noise(4.0, 1))
    found = post(client, "timeline", content, window_s=2, hop_s=2).json()
    expected = tiny.timeline(content, window_s=2, hop_s=2)
    assert [part["text"] for part in found["segments"]] == [part.text for part in expected.segments]
    assert found["duration_s"] == 4.0


@pytest.mark.parametrize(
    ("address", "fields", "message"),
    [
        ("ask", {}, "'question' is missing"),
        ("ask", {"question": " "}, "the question is empty"),
        ("ask", {"question": "x" * 3000}, "at most 2000 characters"),
        ("classify", {}, "'labels' is missing"),
        ("classify", {"labels": " , "}, "no empty ones"),
        ("classify", {"labels": [f"label {index}" for index in range(300)]}, "at most 256 labels"),
        ("classify", {"labels": "[]"}, "at least one label"),
        ("classify", {"labels": "[1, 2]"}, "'labels' must be a JSON list of texts"),
        ("classify", {"labels": '["dog", "rain"'}, "'labels' is not a valid JSON list"),
        ("classify", {"labels": "['dog', 'rain']"}, "'labels' is not a valid JSON list"),
        ("classify", {"labels": '["dog", 5]'}, "'labels' must be a JSON list of texts"),
        ("classify", {"labels": '["' + "[" * 100_000}, "'labels' is not a valid JSON list"),
        ("classify", {"labels": "a, b", "method": "match"}, "'method'"),
        ("classify", {"labels": "a, b", "top": "0"}, "'top'"),
        ("classify", {"labels": "a, b", "none": "2"}, "must be between 0 and 1"),
        ("classify", {"labels": "a, b", "none": "maybe"}, "'none': must be true, false or a number"),
        ("classify", {"labels": "a, b", "none": "true", "method": "generate"}, "need the method 'likelihood'"),
        ("classify", {"labels": "a, b", "prompt": "a {} b"}, "must come at the end of the prompt"),
        ("describe", {"style": "poem"}, "'style'"),
        ("timeline", {"hop_s": "0.0001"}, "'hop_s'"),
        ("timeline", {"hop_s": "nan"}, "'hop_s'"),
        ("timeline", {"window_s": "99"}, "longer than the 10 s"),
    ],
)  # fmt: skip
def test_mistakes_in_the_fields(client: httpx.Client, address: str, fields: dict[str, Any], message: str) -> None:
    assert message in complaint(post(client, address, clip(1), **fields), 400)


def test_mistakes_in_the_form(client: httpx.Client) -> None:
    assert complaint(client.post("/v1/describe"), 400) == "'file' is missing"
    assert complaint(client.post("/v1/describe", files={"audio": clip(0)}), 400) == "'file' is missing"
    two = [("file", ("a.wav", clip(0))), ("file", ("b.wav", clip(1)))]
    assert complaint(client.post("/v1/describe", files=two), 400) == "send one recording in 'file', not 2"
    text = client.post("/v1/describe", files={"file": (None, clip(0))})
    assert "'file' is a text field without a file name" in complaint(text, 400)
    headers = {"content-type": "multipart/form-data"}
    assert "boundary" in complaint(client.post("/v1/describe", content=b"x", headers=headers), 400)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert complaint(client.post("/v1/describe", content=b"--b\r\nnonsense", headers=headers), 400)


@pytest.mark.parametrize(
    "kind", ["audio/wav", "application/octet-stream", "application/x-www-form-urlencoded", "application/json"]
)
def test_a_recording_that_is_no_form(client: httpx.Client, kind: str) -> None:
    response = client.post("/v1/describe", content=clip(0), headers={"content-type": kind})
    message = complaint(response, 415)
    assert f"this address reads a form, not '{kind}'" in message
    assert "curl -F file=@dog.wav" in message


def test_an_empty_file_name(client: httpx.Client, tiny: Pengi) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    good = client.post("/v1/embed", content=part + clip(1) + b"\r\n--b--\r\n", headers=headers)
    np.testing.assert_allclose(good.json()["embedding"], tiny.embed(clip(1)), atol=1e-6)
    not_chosen = client.post("/v1/embed", content=part + b"\r\n--b--\r\n", headers=headers)
    assert complaint(not_chosen, 400) == "'file' is missing"  # what a browser sends where no file was chosen


def test_addresses_that_are_not_there(client: httpx.Client) -> None:
    assert "there is no GET at this address" in complaint(client.get("/v1/nothing"), 404)
    assert "there is no POST at this address" in complaint(client.post("/v1/describe/"), 404)
    assert complaint(client.get("/v1/describe"), 405).startswith("GET does not work at this address")


def test_answers_say_how_a_recording_was_read(client: httpx.Client, shared_cases: Path) -> None:
    content = (shared_cases / "opposite-phase.flac").read_bytes()
    for task, options in (("describe", {}), ("ask", {"question": "what?"}), ("timeline", {})):
        (note,) = post(client, task, content, **options).json()["notes"]
        assert note.startswith("the channels of 'the recording' cancel each other out in 3.00 s of it")
    assert post(client, "describe", clip(1)).json()["notes"] == []
