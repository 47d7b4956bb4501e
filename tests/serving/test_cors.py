"""Which web pages may call the server from a browser."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from helpers.serving import HeldEngine, clip, complaint, serving
from pengi.serving.page_guard import JOIN

KEY = "correct horse"
BEARER = {"Authorization": f"Bearer {KEY}"}
APP = "https://app.example.org"
OTHER = "https://other.example.org"
ALLOWED = "access-control-allow-origin"


def preflight(client: httpx.Client, origin: str, path: str = "/v1/describe") -> httpx.Response:
    """What a browser asks before a page's request with a key and with a header of OpenAI's client."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }
    return client.options(path, headers=headers)


@pytest.fixture
def engine(held: HeldEngine) -> HeldEngine:
    held.free.set()
    return held


def test_an_allowed_page_sends_a_recording_with_a_key(engine: HeldEngine) -> None:
    with serving(engine, api_key=KEY, allow_origins=(APP, "http://localhost:3000")) as client:
        for origin in (APP, "http://localhost:3000"):
            asked = preflight(client, origin)
            assert asked.status_code == 200
            assert asked.headers[ALLOWED] == origin
            assert "authorization" in asked.headers["access-control-allow-headers"]
            response = client.post("/v1/describe", files={"file": clip(0)}, headers={**BEARER, "Origin": origin})
            assert response.json()["text"] == "1.00 s"
            assert response.headers[ALLOWED] == origin
            assert "Origin" in response.headers["vary"]
            assert "access-control-allow-credentials" not in response.headers


def test_an_allowed_page_can_read_why_it_was_refused(engine: HeldEngine) -> None:
    with serving(engine, api_key=KEY, allow_origins=(APP,)) as client:
        for response, status in (
            (client.get("/v1/models", headers={"Origin": APP}), 401),
            (client.post("/v1/describe", headers={**BEARER, "Origin": APP}), 400),
        ):
            complaint(response, status)
            assert response.headers[ALLOWED] == APP


def test_other_pages_stay_outside(engine: HeldEngine) -> None:
    with serving(engine, allow_origins=(APP,)) as client:
        for origin in (OTHER, "null", f"{APP}.evil.example", "http://app.example.org"):
            assert preflight(client, origin).status_code == 400
            assert ALLOWED not in client.get("/v1/models", headers={"Origin": origin}).headers


def test_a_star_lets_all_pages_in_but_not_without_the_key(engine: HeldEngine) -> None:
    with serving(engine, api_key=KEY, allow_origins=("*",)) as client:
        assert preflight(client, OTHER).headers[ALLOWED] == "*"
        response = client.get("/v1/models", headers={**BEARER, "Origin": OTHER})
        assert (response.status_code, response.headers[ALLOWED]) == (200, "*")
        assert client.get("/v1/models", headers={"Origin": OTHER}).status_code == 401


@pytest.mark.parametrize("host", ["pengi.example.org", "127.0.0.1"])
def test_the_page_lets_no_other_page_in_on_any_host(with_page: httpx.Client, host: str) -> None:
    event: Any = {"data": [], "fn_index": 0, "session_hash": "other"}
    headers = {"Origin": OTHER, "Host": host}
    for response in (
        with_page.get("/", headers=headers),
        with_page.get("/config", headers=headers),
        with_page.post(JOIN, json=event, headers=headers),
        with_page.options(JOIN, headers={**headers, "Access-Control-Request-Method": "POST"}),
    ):
        assert not [name for name in response.headers if name.startswith("access-control")]
