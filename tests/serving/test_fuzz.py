"""Damaged recordings and damaged JSON over HTTP: each is a result or one sentence, soon."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from helpers import noise, tone
from helpers.audio import damaged, muxed
from helpers.serving import HeldEngine, complaint, encoded, question, serving

MUXED = {"m4a": ("aac", "mp4"), "webm": ("libopus", "webm")}
FORMATS = ("wav", "flac", "ogg", "mp3", *MUXED)
FILES_PER_FORMAT = 17
SOON_S = 10.0


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """A client of a server whose engine takes no time, so that reading is what is tested."""
    engine = HeldEngine()
    engine.free.set()
    with serving(engine, max_upload_mb=2, max_seconds=60, timeout_s=SOON_S) as client:
        client.timeout = httpx.Timeout(2 * SOON_S)
        yield client


@functools.cache
def recording(container: str) -> bytes:
    """Two seconds of a tone in noise."""
    samples = tone(2.0, 440.0) + noise(2.0, level=0.05)
    if container in MUXED:
        return muxed([(0.0, samples)], *MUXED[container])
    return encoded(samples, container.upper())


def check(response: httpx.Response) -> None:
    """A result, or one sentence with a 4xx."""
    if response.status_code != 200:
        assert 400 <= response.status_code < 500, response.text
        complaint(response, response.status_code)


@pytest.mark.parametrize("container", FORMATS)
def test_recordings(client: httpx.Client, container: str) -> None:
    assert client.post("/v1/describe", files={"file": recording(container)}).json()["text"].startswith("2.0")
    dice = np.random.default_rng(list(container.encode()))
    for _ in range(FILES_PER_FORMAT):
        content = damaged(recording(container), dice)
        check(client.post("/v1/describe", files={"file": ("a", content)}))


def test_json(client: httpx.Client) -> None:
    messages = question(encoded(tone(0.2), "OGG"), "wer spricht? \N{DOG FACE}", container="ogg")
    body = {"model": "held", "messages": messages, "temperature": 0.5, "stop": None}
    content = json.dumps(body, ensure_ascii=False).encode()
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    pieces = (b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"\xff", b"\\u0000", b"\\ud800", b"-1", b"1e999", b"")
    for seed in range(100):
        dice = random.Random(seed)
        broken = content
        for _ in range(dice.choice([1, 1, 3])):
            ends = (0, 160) if dice.random() < 0.5 else (len(broken) - 130, len(broken))
            where = dice.randrange(*ends)
            broken = broken[:where] + dice.choice(pieces) + broken[where + dice.choice([0, 1, 5]) :]
        if dice.random() < 0.2:
            broken = broken[: dice.randrange(len(broken))]
        check(client.post("/v1/chat/completions", content=broken, headers={"content-type": "application/json"}))
