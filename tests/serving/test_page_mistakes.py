"""Requests that the page itself does not send: each is one sentence, in the server's own shape."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from helpers.serving import complaint
from pengi.serving.page_guard import JOIN, UPLOAD

EVENTS: list[Any] = [
    *({}, [], 5, {"data": []}, {"data": [], "fn_index": 999, "session_hash": "s"}),
    *({"data": [], "fn_index": "0"}, {"data": [], "fn_index": -1}, {"fn_index": [0]}),
]


@pytest.mark.parametrize("event", EVENTS)
def test_events_that_the_page_does_not_send(with_page: httpx.Client, event: Any) -> None:
    assert complaint(with_page.post(JOIN, json=event), 400) == "the request names no action of the page"


def test_mistakes_at_addresses_of_the_page_have_the_same_form(with_page: httpx.Client) -> None:
    assert "'data' is missing" in complaint(with_page.post(JOIN, json={"fn_index": 0}), 400)
    for path in ("/static/nothing.js", "/static/%00", "/assets/" + "x" * 3000):
        assert "there is no GET at this address" in complaint(with_page.get(path), 404)
    assert complaint(with_page.post(UPLOAD, json={}), 400) == "invalid content type"


def test_a_wrong_method_is_an_error_also_with_a_page(with_page: httpx.Client) -> None:
    assert complaint(with_page.get("/v1/describe"), 405).startswith("GET does not work at this address")
    assert complaint(with_page.post("/healthz"), 405).startswith("POST does not work at this address")
    assert complaint(with_page.post("/nothing"), 404).startswith("there is no POST at this address")
    assert with_page.head("/healthz").status_code == 200
    assert with_page.head("/").status_code == 200
