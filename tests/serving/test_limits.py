"""Who may enter, with how much, for how long; and how a server ends."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from helpers.serving import PATIENCE_S, HeldEngine, clip, complaint, running, serving, wait_for
from pengi import Pengi
from pengi.serving import inference_worker
from pengi.serving.app import create_app
from pengi.serving.settings import ServingSettings

KEY = "correct horse battery"


@contextlib.contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """A plain connection, to send what no client would."""
    address = urlsplit(str(url))
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 80), timeout=PATIENCE_S) as connection:
        yield connection


def head(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def reply(connection: socket.socket) -> tuple[int, str]:
    """Status and everything else of the answer, up to the end of the first JSON object's line."""
    received = b""
    while b"}}" not in received:
        part = connection.recv(65_536)
        assert part, received
        received += part
    return int(received.split()[1]), received.decode()


@pytest.fixture(scope="module")
def locked(tiny: Pengi) -> Iterator[httpx.Client]:
    with serving(tiny, api_key=KEY) as client:
        yield client


class TestKey:
    @pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/docs", "/openapi.json", "/", "/nothing"])
    def test_everything_needs_it(self, locked: httpx.Client, path: str) -> None:
        missing = complaint(locked.get(path), 401)
        assert missing.startswith("this server needs its API key; send the header 'Authorization: Bearer KEY'")
        wrong_key = complaint(locked.get(path, headers={"Authorization": f"Bearer {KEY}x"}), 401)
        assert wrong_key.startswith("this is not the API key of this server")
        for wrong in ("Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Token {KEY}", KEY, "Bearer \xff", "Basic !"):
            response = locked.get(path, headers={"Authorization": wrong.encode("latin-1")})
            assert response.status_code == 401, wrong
        for right in (f"Bearer {KEY}", f"bearer {KEY}", "Basic " + base64.b64encode(f"me:{KEY}".encode()).decode()):
            assert locked.get(path, headers={"Authorization": right}).status_code in (200, 404)

    def test_but_health(self, locked: httpx.Client) -> None:
        assert locked.get("/healthz").json() == {"status": "ok", "model": "tiny"}
        assert locked.head("/healthz").status_code == 200

    def test_a_browser_gets_a_basic_challenge_and_a_program_does_not(self, locked: httpx.Client) -> None:
        assert locked.get("/").headers["www-authenticate"].startswith("Basic")
        assert locked.get("/v1/models").headers["www-authenticate"] == "Bearer"

    def test_it_is_asked_for_before_the_body_is_read(self, locked: httpx.Client) -> None:
        with connected(str(locked.base_url)) as connection:
            connection.sendall(head("/v1/describe", "Content-Length: 1000000"))
            assert reply(connection)[0] == 401


class TestSize:
    def test_declared(self, client: httpx.Client) -> None:
        with connected(str(client.base_url)) as connection:
            connection.sendall(head("/v1/describe", "Content-Length: 2147483648", "Content-Type: audio/wav"))
            status, text = reply(connection)
        assert status == 413
        assert "recordings up to 2 MB are accepted" in text

    @pytest.mark.parametrize(
        ("address", "kind"),
        [("/v1/describe", "multipart/form-data; boundary=b"), ("/v1/chat/completions", "application/json")],
    )
    def test_not_declared(self, client: httpx.Client, address: str, kind: str) -> None:
        sent = 0

        def endless() -> Iterator[bytes]:
            nonlocal sent
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
            while sent < 50_000_000:
                sent += 65_536
                yield bytes(65_536)

        response = client.post(address, content=endless(), headers={"content-type": kind})
        assert "recordings up to 2 MB" in complaint(response, 413)
        assert sent < 50_000_000

    def test_a_recording_of_just_the_limit(self, client: httpx.Client) -> None:
        for size, status in ((2_000_000, 422), (2_000_001, 413)):
            response = client.post("/v1/describe", files={"file": b"no audio" * 250_000 + bytes(size - 2_000_000)})
            assert response.status_code == status, response.text

    def test_packed(self, client: httpx.Client) -> None:
        for encoding in ("gzip", "br", "deflate", "zstd, gzip"):
            response = client.post("/v1/describe", content=b"\x1f\x8b", headers={"content-encoding": encoding})
            assert "send the body uncompressed" in complaint(response, 415)

    def test_all_bodies_together(self, held: HeldEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ServingSettings, "held_bytes", 50_000)
        with serving(held) as client, ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.post, "/v1/describe", files={"file": clip(0)})
            wait_for(held.started.is_set)
            response = client.post("/v1/describe", files={"file": clip(0)})
            assert "too much is being uploaded at once" in complaint(response, 429)
            assert int(response.headers["retry-after"]) >= 1
            held.free.set()
            assert first.result(PATIENCE_S).status_code == 200
            assert client.post("/v1/describe", files={"file": clip(0)}).status_code == 200


class TestTime:
    def test_an_answer_that_takes_too_long(self, held: HeldEngine) -> None:
        with serving(held, timeout_s=1.5) as client:
            response = client.post("/v1/timeline", files={"file": clip(0)})
            assert complaint(response, 504) == "there was no answer within 1.5 seconds"
            wait_for(lambda: "pengi_jobs 0.0" in client.get("/metrics").text)
            assert not held.free.is_set()
            held.free.set()
            assert client.post("/v1/embed", files={"file": clip(0)}).status_code == 200

    def test_a_request_that_the_model_never_came_to(self, held: HeldEngine) -> None:
        with serving(held, timeout_s=1.5) as client, ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.post, "/v1/embed", files={"file": clip(0)})
            wait_for(held.started.is_set)
            assert "busy" in complaint(client.post("/v1/describe", files={"file": clip(0)}), 429)
            assert first.result(PATIENCE_S).status_code == 504
            held.free.set()
        assert held.calls == [("embed", [1.0])]

    def test_long_requests_keep_only_long_ones_out(self, held: HeldEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inference_worker, "INITIAL_TOKEN_S", 0.1)
        labels = [f"label {number}" for number in range(256)]
        with serving(held, timeout_s=60) as client, ThreadPoolExecutor(3) as pool:

            def post(path: str, **fields: list[str]) -> httpx.Response:
                return client.post(f"/v1/{path}", files={"file": clip(0)}, data=fields)

            def holds(gauge: str) -> bool:
                return gauge in client.get("/metrics").text

            sent = [pool.submit(post, "embed")]
            wait_for(held.started.is_set)
            sent.append(pool.submit(post, "classify", labels=labels))
            wait_for(lambda: holds("pengi_queue 1.0"))
            assert "busy" in complaint(post("classify", labels=labels), 429)
            sent.append(pool.submit(post, "embed"))
            wait_for(lambda: holds("pengi_queue 2.0"))
            assert holds("pengi_tokens 642.0")
            held.free.set()
            assert [response.result(PATIENCE_S).status_code for response in sent] == [200] * 3
        assert [task for task, _ in held.calls] == ["embed", "embed", "classify"]

    def test_a_body_that_does_not_arrive(self, held: HeldEngine) -> None:
        with serving(held, timeout_s=0.2) as client, connected(str(client.base_url)) as connection:
            connection.sendall(
                head("/v1/chat/completions", "Content-Length: 1000", "Content-Type: application/json") + b"["
            )
            status, text = reply(connection)
            assert status == 408
            assert "did not arrive within 0.2 seconds" in text
            assert connection.recv(10) == b""

    def test_a_client_that_hangs_up(self, held: HeldEngine) -> None:
        with serving(held) as client:
            body = (
                b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + clip(0) + b"\r\n--b--\r\n"
            )
            headers = [f"Content-Length: {len(body)}", "Content-Type: multipart/form-data; boundary=b"]
            with connected(str(client.base_url)) as connection:
                connection.sendall(head("/v1/timeline", *headers) + body)
                wait_for(lambda: held.windows)
            wait_for(lambda: "pengi_jobs 0.0" in client.get("/metrics").text)
            assert not held.free.is_set()
            counted = 'pengi_requests_total{endpoint="/v1/timeline",status="499"} 1.0'
            wait_for(lambda: counted in client.get("/metrics").text)


class TestEnd:
    def test_requests_inside_are_answered_and_new_ones_are_not_taken(self, held: HeldEngine) -> None:
        app = create_app(held, ServingSettings(page=False))
        with running(app) as (url, server), ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(httpx.post, f"{url}/v1/embed", files={"file": clip(0)}, timeout=99) for _ in range(3)]
            wait_for(lambda: len(app.state.worker._accepted) == 3)
            server.should_exit = True
            wait_for(lambda: not server.servers[0].is_serving())
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{url}/healthz")
            held.free.set()
            assert [response.result(PATIENCE_S).status_code for response in asked] == [200] * 3
        assert not [thread for thread in threading.enumerate() if thread is app.state.worker._model]

    def test_a_closing_worker_is_a_503(self, held: HeldEngine) -> None:
        held.free.set()
        app = create_app(held, ServingSettings(page=False))
        with running(app) as (url, _):
            app.state.worker.close()
            response = httpx.post(f"{url}/v1/embed", files={"file": clip(0)})
            assert complaint(response, 503) == "the server is shutting down"
            assert "retry-after" in response.headers
            assert httpx.get(f"{url}/healthz").json() == {"status": "closing", "model": "held"}


def test_an_error_of_the_server_is_json_without_a_traceback(held: HeldEngine) -> None:
    with serving(held) as client:
        response = client.post("/v1/ask", files={"file": clip(0)}, data={"question": "break"})
        assert complaint(response, 500) == "internal error; see the server's log"
        held.free.set()
        assert client.post("/v1/embed", files={"file": clip(0)}).status_code == 200


def test_other_sites_are_not_let_in(client: httpx.Client) -> None:
    headers = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    response = client.options("/v1/describe", headers=headers)
    assert response.status_code == 405
    assert not [name for name in client.get("/v1/models", headers=headers).headers if name.startswith("access-control")]
