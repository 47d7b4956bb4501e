"""What the application offers beside answers: documentation, health, counters, the page."""

from __future__ import annotations

import sys
import types
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from helpers.serving import HeldEngine, clip, serving
from pengi.serving.app import create_app
from pengi.serving.settings import ServingSettings

ADDRESSES = {
    "/healthz", "/metrics", "/v1/models", "/v1/models/{model}", "/v1/chat/completions", "/v1/describe", "/v1/ask",
    "/v1/classify", "/v1/tags", "/v1/embed", "/v1/timeline", "/v1/audio/transcriptions",
}  # fmt: skip


def test_every_address_is_documented(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == ADDRESSES
    for path in ADDRESSES:
        for operation in described["paths"][path].values():
            assert operation["description"]
    chat = described["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]
    example = chat["examples"]["a question about a recording"]["value"]
    assert example["messages"][0]["content"][0]["type"] == "input_audio"
    upload = described["paths"]["/v1/classify"]["post"]["requestBody"]["content"]
    assert list(upload) == ["multipart/form-data"]
    assert client.get("/docs").status_code == 200


def test_health(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok", "model": "tiny"}


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/v1/models", "/docs", "/openapi.json"])
def test_head_says_what_get_says_without_a_body(client: httpx.Client, path: str) -> None:
    response = client.head(path)
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["content-type"] == client.get(path).headers["content-type"]


def test_counters_move(client: httpx.Client) -> None:
    def value(name: str) -> float:
        lines = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#")
        return float(lines.get(name, 0))

    names = {
        'pengi_requests_total{endpoint="/v1/embed",status="200"}': 1,
        'pengi_requests_total{endpoint="/v1/embed",status="422"}': 1,
        'pengi_requests_total{endpoint="other",status="404"}': 1,
        'pengi_request_seconds_count{endpoint="/v1/embed"}': 2,
        'pengi_audio_seconds_total{task="embed"}': 3,
        'pengi_batch_size_sum{task="embed"}': 1,
    }
    before = {name: value(name) for name in names}
    client.post("/v1/embed", files={"file": clip(0, 3.0)})
    client.post("/v1/embed", files={"file": b""})
    client.get("/v1/../nothing-of-the-kind")
    assert {name: value(name) - before[name] for name in names} == names


def test_the_page_is_mounted_when_it_is_wanted(held: HeldEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted: list[Any] = []

    def mount(app: Any, worker: Any, collection: Any, *, limits: Any) -> Any:
        mounted.append((worker, collection, limits.duration_s, limits.upload_bytes))
        return app

    page = types.ModuleType("pengi.serving.page")
    page.mount = mount  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pengi.serving.page", page)
    monkeypatch.setattr("pengi.serving.page", page, raising=False)
    store = object()
    for wanted in (True, False):
        app = create_app(held, ServingSettings(page=wanted, max_seconds=9, max_upload_mb=3), collection=store)
        if wanted:
            assert mounted == [(app.state.worker, store, 9, 3_000_000)]
        app.state.worker.close()
    assert len(mounted) == 1


def test_the_folder_of_a_model_is_not_shown(held: HeldEngine) -> None:
    held.name = "/home/someone/runs/my-model"
    with serving(held, page=True) as client:
        page = client.get("/").text
        assert "my-model" in page
        assert "/home/someone" not in page
        assert client.get("/healthz").json()["model"] == "my-model"
        assert client.get("/v1/models").json()["data"][0]["id"] == "my-model"


def test_settings_are_frozen_and_sane() -> None:
    settings = ServingSettings()
    assert settings.host == "127.0.0.1"
    assert settings.api_key is None
    with pytest.raises(ValidationError):
        settings.port = 1
    for wrong in (
        {"batch_size": 0},
        {"max_requests": 0},
        {"timeout_s": 0},
        {"max_upload_mb": -1},
        {"api_key": "short"},
        {"api_key": "Schlüssel zum Haus"},
        {"api_key": "correct horse\n"},
        {"batch": 1},
        *({"root_path": path} for path in ("https://example.org/a", "/a/../b", "/a b", "/v1", "/page/x", "/a?b")),
        *({"allow_origins": [origin]} for origin in ("", "example.org", "https://*.example.org", "https://a.org/app")),
    ):
        with pytest.raises(ValidationError):
            ServingSettings.model_validate(wrong)
    assert "correct horse" not in repr(ServingSettings(api_key="correct horse"))
    assert settings.json_bytes > settings.upload_bytes * 4 / 3


@pytest.mark.parametrize(
    ("given", "meant"), [("", ""), ("/", ""), ("pengi", "/pengi"), ("/pengi/", "/pengi"), ("/a/b-c", "/a/b-c")]
)
def test_root_paths_are_brought_to_one_form(given: str, meant: str) -> None:
    assert ServingSettings(root_path=given).root_path == meant


def test_origins_are_brought_to_the_form_that_browsers_send() -> None:
    given = ("https://App.example.org/", "http://localhost:3000", "null", "*")
    meant = ("https://app.example.org", "http://localhost:3000", "null", "*")
    assert ServingSettings(allow_origins=given).allow_origins == meant
