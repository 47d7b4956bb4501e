"""Uploads that mean harm: each is refused with a 4xx in JSON, soon, in little memory, and the server goes on."""

from __future__ import annotations

import functools
import gzip
import io
import json
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from helpers import RATE
from helpers.serving import clip, complaint, encoded, question
from pengi import Pengi, calls

SOON_S = 20.0
"""A refusal takes milliseconds; other work on the machine must not fail the test."""
LITTLE_MB = 250.0
"""Server, client and the attack itself live in this one process."""
CHAT = "/v1/chat/completions"


def peak_mb() -> float:
    """Highest resident memory since it was last reset, in MB (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


@contextmanager
def bounded() -> Iterator[None]:
    """What is done inside must take little time and memory."""
    reset = Path("/proc/self/clear_refs")
    measurable = reset.is_file()
    if measurable:
        reset.write_text("5", encoding="ascii")  # proc(5): resets the peak to the current size
        before_mb = peak_mb()
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < SOON_S
    if measurable:
        assert peak_mb() - before_mb < LITTLE_MB


@pytest.fixture(autouse=True)
def unharmed(client: httpx.Client, tiny: Pengi) -> Iterator[None]:
    """After each attack the server answers as before and holds nothing back."""
    yield
    assert client.post("/v1/embed", files={"file": clip(0)}).status_code == 200
    counters = client.get("/metrics").text
    for name in ("pengi_jobs", "pengi_requests_in_flight", "pengi_held_bytes", "pengi_queue_audio_seconds"):
        assert f"\n{name} 0.0\n" in counters


def wav(layout: bytes, data: bytes) -> bytes:
    """A WAV file of any layout chunk."""
    chunks = b"fmt " + struct.pack("<I", len(layout)) + layout + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def zip_bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(50_000_000))
    return file.getvalue()


@functools.cache
def hours_of_silence(container: str, subtype: str, rate: int) -> bytes:
    """Eight hours in less than two megabytes."""
    file = io.BytesIO()
    block = np.zeros(600 * rate, np.int16)
    with soundfile.SoundFile(file, "w", rate, 1, subtype, format=container) as output:
        for _ in range(48):
            output.write(block)
    return file.getvalue()


def unstated(flac: bytes) -> bytes:
    """A FLAC file that does not say how long it is: the 36 bits of its number of samples are 0."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


PCM_65535 = struct.pack("<HHIIHH", 1, 65_535, RATE, 0, 0, 16)
AU_MILLION = b".snd" + struct.pack(">IIIII", 24, 4_000_000, 3, RATE, 1_000_000) + bytes(400_000)
ATTACKS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "one byte": lambda: b"R",
    "html": lambda: b"<!DOCTYPE html><html><body>404</body></html>" * 100,
    "zip bomb": zip_bomb,
    "gzip bomb": lambda: gzip.compress(bytes(50_000_000)),
    "65535 channels": lambda: wav(PCM_65535, bytes(400_000)),
    "10^6 channels": lambda: AU_MILLION,
    "10^6 channels, cut": lambda: AU_MILLION[:1000],
    "a rate of 2^32 - 1": lambda: wav(struct.pack("<HHIIHH", 1, 1, 2**32 - 1, 0, 2, 16), bytes(4000)),
    "4 GB promised": lambda: clip(0)[:40] + struct.pack("<I", 2**31 - 10**6) + clip(0)[44:],
    "not a number": lambda: encoded(np.array([0.0, np.nan, 0.5] * 9000, np.float32), subtype="FLOAT"),
    "infinite": lambda: encoded(np.array([0.0, np.inf] * 9000, np.float32), subtype="FLOAT"),
    "no samples": lambda: encoded(np.zeros(0, np.float32)),
    "8 hours of flac": lambda: hours_of_silence("FLAC", "PCM_16", 8_000),
    "8 hours of flac, unstated": lambda: unstated(hours_of_silence("FLAC", "PCM_16", 8_000)),
    "playlist": lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9.0,\n/etc/passwd\n#EXT-X-ENDLIST\n",
    "random": lambda: np.random.default_rng(0).bytes(1_500_000),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_as_a_file(client: httpx.Client, attack: str) -> None:
    content = ATTACKS[attack]()
    with bounded():
        response = client.post("/v1/describe", files={"file": ("song.flac", content, "audio/flac")})
    message = complaint(response, 413 if len(content) > 2_000_000 else 422)
    if "8 hours" in attack:
        assert "longer than the 60 seconds that are accepted" in message


def test_hours_in_ogg_are_refused_by_what_they_state(client: httpx.Client) -> None:
    second = encoded(np.zeros(48_000, np.float32), "OGG", 48_000, subtype="OPUS")
    last_page = second.rindex(b"OggS")
    hours = bytearray(second)
    hours[last_page + 6 : last_page + 14] = struct.pack("<q", 8 * 3600 * 48_000)
    with bounded():
        response = client.post("/v1/describe", files={"file": ("a.opus", bytes(hours))})
    assert 400 <= response.status_code < 500
    complaint(response, 422)


def test_base64_that_is_none(client: httpx.Client) -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "!!", "format": "wav"}}
    body = {"model": "tiny", "messages": [{"role": "user", "content": [audio]}]}
    assert "base64" in complaint(client.post(CHAT, json=body), 400)


@pytest.mark.parametrize("attack", ["empty", "html", "zip bomb", "10^6 channels", "not a number"])
def test_as_base64(client: httpx.Client, attack: str) -> None:
    body = {"model": "tiny", "messages": question(ATTACKS[attack]())}
    with bounded():
        complaint(client.post(CHAT, json=body), 422)


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "C:\\x\\a.wav", "a\0.wav", "x" * 1000, "", "~", "|ls"]
)
def test_file_names_mean_nothing(client: httpx.Client, name: str) -> None:
    quoted = name.replace("\0", "%00")
    part = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n\r\n'.encode()
    headers = {"content-type": "multipart/form-data; boundary=b"}
    good = client.post("/v1/embed", content=part + clip(0) + b"\r\n--b--\r\n", headers=headers)
    bad = client.post("/v1/embed", content=part + b"text\r\n--b--\r\n", headers=headers)
    assert good.status_code == 200
    assert name not in complaint(bad, 422) or not name


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "missing"),
        (b"not json", "not valid JSON"),
        (b"[" * 15_000, "cannot be parsed"),
        (b'{"a":' * 15_000, "cannot be parsed"),
        (b"[" * 1_000_000, "too many parts"),
        (b"[" + b"[]," * 600_000 + b"[]]", "too many parts"),
        (b"[" + b"1," * 600_000 + b"1]", "too many parts"),
        (b'{"model": "tiny", "messages": []}', "at least 1 item"),
        (b'{"model": "tiny", "messages": [' + b'{"role": "user"},' * 300 + b'{"role": "user"}]}', "at most 200 items"),
        (b'{"model": "' + b"x" * 1_000_000 + b'", "messages": [{"role": "user"}]}', "there is no model 'xxxx"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": 5}]}', "valid list"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": ["x"]}]}', "'messages.0.content.0': must be a"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": [{"type": 5}]}]}', "'messages.0.content.0.type'"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": [{"type": "text", "text": {}}]}]}', "0.text'"),
        (b'{"model": "tiny", "temperature": -1, "messages": [{"role": "user"}]}', "'temperature'"),
        (b'{"model": "tiny", "max_tokens": 0, "messages": [{"role": "user"}]}', "'max_tokens'"),
        (b'{"model": "tiny", "n": 3, "stream": true, "messages": [{"role": "user"}]}', "'n' is not supported"),
        (b'{"model": "tiny", "stream_options": 5, "messages": [{"role": "user"}]}', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}', "is missing"),
        (b'{"model": "tiny", "temperature": NaN, "messages": [{"role": "user"}]}', "temperature"),
        (b'{"model": "tiny", "seed": 1e999, "messages": [{"role": "user"}]}', "seed"),
        (b'{"model": "tiny", "seed": ' + b"9" * 5000 + b', "messages": [{"role": "user"}]}', ""),
        (b'{"model": "\\ud800", "messages": [{"role": "user"}]}', "there is no model '?'"),
        (b"\xff\xfe\x00", ""),
        (b'{"model": "tiny\xff"}', "it is not UTF-8"),
    ],
)  # fmt: skip
def test_json(client: httpx.Client, body: bytes, message: str) -> None:
    with bounded():
        response = client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert message in complaint(response, 404 if "no model" in message else 400)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_json_that_is_sent_as_something_else(client: httpx.Client, kind: str) -> None:
    message = complaint(client.post(CHAT, content=b'{"model": "tiny"}', headers={"content-type": kind}), 415)
    assert "send the header 'Content-Type: application/json'" in message
    assert kind in message


def test_a_temperature_near_zero_takes_the_most_likely_text(client: httpx.Client, tiny: Pengi) -> None:
    texts = set()
    for temperature in (1e-320, 1e-6):
        body = {"model": "tiny", "temperature": temperature, "messages": question(clip(0), "what?")}
        response = client.post(CHAT, json=body)
        assert response.status_code == 200, response.text
        texts.add(response.json()["choices"][0]["message"]["content"])
    assert texts == {tiny.ask(clip(0), "what?", options=replace(calls.ANSWER, beams=1)).text}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/v1/describe", "/v1/chat/completions"])
def test_methods_that_do_not_work(client: httpx.Client, method: str, path: str) -> None:
    assert complaint(client.request(method, path), 405).startswith(f"{method} does not work at this address")


def test_half_a_character(client: httpx.Client) -> None:
    body = {"model": "tiny", "messages": question(clip(0), "\ud800?")}
    headers = {"content-type": "application/json"}
    assert "surrogate" in complaint(client.post(CHAT, content=json.dumps(body), headers=headers), 400)


def test_many_parts_of_a_form(client: httpx.Client) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    with bounded():
        response = client.post("/v1/describe", content=part * 20_000 + b"--b--\r\n", headers=headers)
    assert "too many files" in complaint(response, 400)


def test_a_form_field_of_a_megabyte(client: httpx.Client) -> None:
    with bounded():
        response = client.post("/v1/ask", files={"file": clip(0)}, data={"question": "x" * 1_200_000})
    complaint(response, 400)


def test_attacks_are_not_echoed(client: httpx.Client) -> None:
    body: Any = {"model": "<script>alert(1)</script>", "messages": [{"role": "user", "content": "x" * 1000}]}
    response = client.post(CHAT, content=json.dumps(body), headers={"content-type": "application/json"})
    complaint(response, 404)
    assert len(response.content) < 500
