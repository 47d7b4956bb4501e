"""``pengi serve`` as a process: its address, its output, its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from helpers.commands import complaint

PATIENCE_S = 120.0


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "pengi", "serve", "--port", "0", "--no-page", "--json", *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, **environment}, **pipes) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline()]
            while lines[-1].rstrip() != "}":
                assert lines[-1], "the server ended before it was ready"
                lines.append(process.stdout.readline())
            yield json.loads("".join(lines))["url"], process
        finally:
            process.kill()


def test_from_start_to_a_graceful_end(tiny_folder: Path, tone: Path) -> None:
    options = ("--root-path", "pengi/", "--allow-origin", "https://app.example.org")
    with serving("--model", str(tiny_folder), *options, PENGI_API_KEY="correct horse") as (url, process):
        assert url.startswith("http://127.0.0.1:")
        assert url.endswith("/pengi")
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok", "model": "tiny"}
        refused = httpx.get(f"{url}/v1/models", headers={"Origin": "https://app.example.org"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://app.example.org"
        with ThreadPoolExecutor(4) as pool, httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
            client.headers["Authorization"] = "Bearer correct horse"
            asked = [pool.submit(client.post, "/v1/describe", files={"file": tone.read_bytes()}) for _ in range(4)]
            while "pengi_requests_in_flight 4.0" not in (counters := client.get("/metrics").text):
                assert 'endpoint="/v1/describe",status="200"' not in counters, "too quick for this test"
            process.send_signal(signal.SIGTERM)
            assert {answer.result().status_code for answer in asked} == {200}
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.wait(PATIENCE_S) in (0, -signal.SIGTERM)
        assert process.stdout.read() == ""
        errors = process.stderr.read()
        assert "tiny is served at http://127.0.0.1:" in errors
        assert "correct horse" not in errors
        assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--batch-size", "0"], "'batch_size': input should be greater than or equal to 1"),
        (["--timeout", "-1"], "'timeout_s'"),
        (["--api-key", "short"], "'api_key': the key is shorter than 8 characters"),
        (["--api-key", "correct horse "], "'api_key': the key may have ASCII letters"),
        (["--root-path", "https://example.org/pengi"], "'root_path': give the path alone, such as /pengi"),
        (["--root-path", "/v1"], "'/v1' begins like the server's own addresses"),
        (["--allow-origin", "example.org"], "'example.org' is not an origin; give scheme, host and port"),
        (["--no-page", "--index", "sounds.index"], "--index is searched on the page"),
        (["--host", "192.0.2.1"], "cannot listen at 192.0.2.1 port 8000"),
        (["--host", "no such host"], "cannot listen at no such host"),
    ],
)
def test_mistakes_are_a_sentence(pengi: Callable[..., Any], arguments: list[str], sentence: str) -> None:
    assert sentence in complaint(pengi("serve", *arguments))


def test_an_address_that_is_taken(pengi: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = pengi("serve", "--port", taken.getsockname()[1], "--model", "never-loaded")
    assert "choose another address" in complaint(result)
