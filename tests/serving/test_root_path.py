"""The server and its page behind a reverse proxy that shows them under a path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from helpers.serving import PATIENCE_S, HeldEngine, clip, complaint, proxied, running
from pengi.serving.app import create_app
from pengi.serving.page_guard import JOIN, UPLOAD
from pengi.serving.settings import ServingSettings

KEY = "correct horse"
PREFIX = "/pengi"
BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server with a page and a key, under a root path, as it is seen without a proxy."""
    engine = HeldEngine()
    engine.free.set()
    with running(create_app(engine, ServingSettings(root_path=PREFIX, api_key=KEY))) as (url, _):
        yield url


@pytest.fixture(scope="module", params=[True, False], ids=["the proxy strips the path", "the proxy keeps the path"])
def proxy(address: str, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client of the proxy, with the key."""
    with (
        proxied(address, PREFIX, strips=request.param) as url,
        httpx.Client(base_url=url, headers=BEARER, timeout=PATIENCE_S) as client,
    ):
        yield client


def settings_of(page: httpx.Response) -> dict[str, Any]:
    """What Gradio's page says about itself."""
    found = re.search(r"window\.gradio_config = (\{.*?\});</script>", page.text, re.DOTALL)
    assert found is not None
    settings: dict[str, Any] = json.loads(found[1])
    return settings


def action_named(settings: dict[str, Any], name: str) -> int:
    return next(index for index, action in enumerate(settings["dependencies"]) if action["api_name"] == name)


def results(client: httpx.Client, session: str) -> Iterator[dict[str, Any]]:
    """What the page is sent until its action is complete."""
    with client.stream("GET", f"{PREFIX}/gradio_api/queue/data", params={"session_hash": session}) as reply:
        assert reply.status_code == 200
        for line in reply.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            yield message
            if message.get("msg") == "process_completed":
                return


def test_requests_of_programs(proxy: httpx.Client) -> None:
    assert proxy.get(f"{PREFIX}/healthz").json() == {"status": "ok", "model": "held"}
    response = proxy.post(f"{PREFIX}/v1/describe", files={"file": clip(0)})
    assert response.json()["text"] == "1.00 s"
    assert "does not work" in complaint(proxy.get(f"{PREFIX}/v1/describe"), 405)
    assert "there is no GET" in complaint(proxy.get(f"{PREFIX}/nothing"), 404)
    counters = proxy.get(f"{PREFIX}/metrics").text
    assert 'pengi_requests_total{endpoint="/v1/describe",status="200"}' in counters


def test_only_health_is_open_without_the_key(proxy: httpx.Client) -> None:
    nothing = {"Authorization": ""}
    assert proxy.get(f"{PREFIX}/healthz", headers=nothing).status_code == 200
    for path in ("/", "/v1/models", "/metrics", "/docs", "/healthz/", "/healthz/v1/models"):
        complaint(proxy.get(PREFIX + path, headers=nothing), 401)


def test_the_page_brings_its_files(proxy: httpx.Client) -> None:
    page = proxy.get(f"{PREFIX}/")
    assert "Pengi" in page.text
    files = re.findall(r'(?:src|href)="\./(assets/[^"]+)"', page.text)
    assert len(files) >= 2
    for path in (*files, "theme.css", "config"):
        assert proxy.get(f"{PREFIX}/{path}").status_code == 200
    assert settings_of(page)["root"] == f"{str(proxy.base_url).rstrip('/')}{PREFIX}"


def test_the_page_describes_an_upload_and_plays_it(proxy: httpx.Client) -> None:
    settings = settings_of(proxy.get(f"{PREFIX}/"))
    uploaded = proxy.post(PREFIX + UPLOAD, files={"files": ("yard.wav", clip(0))}).json()[0]
    file = {"path": uploaded, "orig_name": "yard.wav", "meta": {"_type": "gradio.FileData"}}
    event = {"data": [file, None], "fn_index": action_named(settings, "load"), "session_hash": "proxied"}
    assert proxy.post(PREFIX + JOIN, json=event).status_code == 200
    shown = list(results(proxy, "proxied"))
    assert shown[-1]["success"], shown[-1]
    text = json.dumps(shown)
    assert "1.00 s" in text
    recording = re.search(r"src=..?(page/recordings/[\w-]+)", text)
    assert recording is not None, text[:3000]
    assert proxy.get(f"{PREFIX}/{recording[1]}").content == clip(0)


def test_the_documentation_knows_the_path(proxy: httpx.Client) -> None:
    assert proxy.get(f"{PREFIX}/openapi.json").json()["servers"] == [{"url": PREFIX}]
    assert f"'{PREFIX}/openapi.json'" in proxy.get(f"{PREFIX}/docs").text


def test_without_a_proxy_the_path_may_be_there_or_not(address: str) -> None:
    for path in ("/v1/models", f"{PREFIX}/v1/models"):
        assert httpx.get(address + path, headers=BEARER).json()["data"][0]["id"] == "held"
    assert httpx.get(address + PREFIX, headers=BEARER).headers["location"] == f"{PREFIX}/"
