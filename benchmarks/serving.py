"""Tests a server under load: many local clients send valid and bad requests; answers are compared with the engine's.

    python benchmarks/serving.py --clients 32 --seconds 60 --out results/serving.json

Starts ``pengi serve`` in its own process, first with batches and then without (``--batch-size 1``), and lets the same
clients send the same requests. A client that gets status 429 waits as long as the reply says. The expected answers are
computed by the engine before. The report has statuses, unanswered requests, wrong answers, latencies, throughput and
the server's resident memory over time.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from run_record import run_record, write_results

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.opus"))[::2]
QUESTIONS = ("what is heard?", "is someone speaking?")
LABELS = ["dog barking", "rooster crowing", "siren", "church bells", "glass breaking", "speech", "french horn"]
SHARE_OF_BAD = 0.25
CLIENT_TIMEOUT_S = 150.0
NUMBERS_AGREE = 0.02
"""The server reads evidence and question one after the other, which changes a probability by up to as much."""
BUSY = 429


@dataclass(frozen=True)
class Request:
    """A request and its expected response: a status and, for a valid request, the engine's answer."""

    path: str
    arguments: dict[str, Any]
    status: tuple[int, ...]
    answer: Any = None


@dataclass
class Tally:
    """The responses that the clients of one run got."""

    statuses: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    good_s: list[float] = field(default_factory=list)
    bad_s: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def good_requests(model: str) -> list[Request]:
    """One request of every kind for every example, with the answer of a single call of the engine."""
    from pengi import Pengi

    engine = Pengi.from_pretrained(model)
    found = []
    for path in EXAMPLES:
        content = path.read_bytes()
        upload = {"files": {"file": (path.name, content)}}
        for question in QUESTIONS:
            answer = engine.ask(path, question)
            parts = [
                {"type": "input_audio", "input_audio": {"data": base64.b64encode(content).decode(), "format": "opus"}},
                {"type": "text", "text": question},
            ]
            body = {"model": model, "messages": [{"role": "user", "content": parts}]}
            found.append(Request("/v1/chat/completions", {"json": body}, (200,), answer.text))
            found.append(Request("/v1/ask", {**upload, "data": {"question": question}}, (200,), answer.to_dict()))
        found.append(Request("/v1/describe", upload, (200,), engine.describe(path).to_dict()))
        classified = engine.classify(path, LABELS).to_dict()
        found.append(Request("/v1/classify", {**upload, "data": {"labels": LABELS}}, (200,), classified))
        found.append(Request("/v1/embed", upload, (200,), {"embedding": engine.embed(path).tolist()}))
        found.append(Request("/v1/timeline", upload, (200,), engine.timeline(path).to_dict()))
    return found


def bad_requests(model: str) -> list[Request]:
    """Mistakes and attacks, each of which must be refused."""
    whole = EXAMPLES[0].read_bytes()
    chat, nothing = "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    return [
        Request("/v1/describe", {"files": {"file": ("a.wav", b"")}}, (422,)),
        Request("/v1/describe", {"files": {"file": ("a.wav", b"<!DOCTYPE html><html></html>" * 50)}}, (422,)),
        Request("/v1/ask", {"files": {"file": ("../../etc/passwd", whole[:3000])}, "data": {"question": "?"}}, (422,)),
        Request("/v1/ask", {"files": {"file": ("a.opus", whole)}}, (400,)),
        Request("/v1/timeline", {"files": {"file": ("a.opus", whole)}, "data": {"hop_s": "-1"}}, (400,)),
        Request("/v1/describe", {"content": b"x" * 2_000_000}, (400,)),
        Request("/v1/describe", {"files": {"file": ("a.wav", bytes(30_000_000))}}, (413,)),
        Request(chat, {"json": nothing}, (400,)),
        Request(chat, {"json": {**nothing, "model": "no-such-model"}}, (404,)),
        Request(chat, {"content": b"[" * 15_000, "headers": {"content-type": "application/json"}}, (400,)),
    ]


@contextlib.contextmanager
def server(model: str, batch: int) -> Iterator[tuple[str, int]]:
    """``pengi serve`` in a process of its own: its address and process id."""
    command = [sys.executable, "-m", "pengi", "serve", "--port", "0", "--no-page", "--json", "--model", model]
    with subprocess.Popen([*command, "--batch-size", str(batch)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = []
            while (line := process.stdout.readline()).rstrip() != "}":
                assert line, "the server ended before it was ready"
                lines.append(line)
            yield json.loads("".join(lines) + "}")["url"], process.pid
        finally:
            process.terminate()
            process.wait(timeout=CLIENT_TIMEOUT_S)


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in MB (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def client(url: str, until: float, seed: int, good: list[Request], bad: list[Request], tally: Tally) -> None:
    """Send one request after the other until the time is over."""
    draw = random.Random(seed)
    with httpx.Client(base_url=url, timeout=CLIENT_TIMEOUT_S) as http:
        while time.monotonic() < until:
            is_bad = draw.random() < SHARE_OF_BAD
            request = draw.choice(bad if is_bad else good)
            begun, pause_s = time.monotonic(), 0.0
            try:
                response = http.post(request.path, **request.arguments)
            except httpx.HTTPError as error:
                with tally.lock:
                    tally.statuses[type(error).__name__] += 1
                    tally.unexpected.append(f"{request.path}: {type(error).__name__} {error}")
                continue
            spent_s = time.monotonic() - begun
            with tally.lock:
                judge(request, response, tally)
                if response.status_code == BUSY:
                    pause_s = min(float(response.headers["Retry-After"]), max(0.0, until - time.monotonic()))
                elif response.status_code in request.status:
                    (tally.bad_s if is_bad else tally.good_s).append(spent_s)
            time.sleep(pause_s)


def judge(request: Request, response: httpx.Response, tally: Tally) -> None:
    """Count a response, and store it if it is not as expected."""
    tally.statuses[str(response.status_code)] += 1
    if response.status_code == BUSY:  # refused for now, which is right for a busy server
        return
    if response.status_code not in request.status:
        tally.unexpected.append(f"{request.path}: {response.status_code} {response.text[:200]}")
    elif response.status_code != 200:
        if set(response.json()) != {"error"}:
            tally.unexpected.append(f"{request.path}: {response.text[:200]}")
    else:
        body = response.json()
        found = body["choices"][0]["message"]["content"] if "choices" in body else body
        if not same(found, request.answer):
            tally.wrong.append(f"{request.path}: {str(found)[:200]} instead of {str(request.answer)[:200]}")


def same(found: Any, expected: Any) -> bool:
    """Whether two values are equal, up to the rounding of numbers that depends on the batch."""
    if isinstance(expected, dict):
        # JSON has null where the engine has nothing.
        found, expected = ({key: value for key, value in row.items() if value is not None} for row in (found, expected))
        return found.keys() >= expected.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float):
        return bool(abs(found - expected) <= NUMBERS_AGREE)
    return bool(found == expected)


def loaded(
    url: str, pid: int, run: Callable[[int, float, Tally], None], clients: int, seconds: float
) -> dict[str, Any]:
    """Run all clients against a server, and report."""
    tally = Tally()
    begun = time.monotonic()
    threads = [threading.Thread(target=run, args=(seed, begun + seconds, tally)) for seed in range(clients)]
    memory = [resident_mb(pid)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(1)
        memory.append(resident_mb(pid))
    spent_s = time.monotonic() - begun
    metrics = dict(line.rsplit(" ", 1) for line in httpx.get(f"{url}/metrics").text.splitlines() if line[0] != "#")
    sizes = [(name, float(value)) for name, value in metrics.items() if name.startswith("pengi_batch_size")]
    # Texts are encoded together, as the task "encode", and then written together, step by step.
    sizes = [(name, value) for name, value in sizes if 'task="ask"' not in name and 'task="describe"' not in name]
    calls = sum(value for name, value in sizes if name.startswith("pengi_batch_size_count"))
    recordings = sum(value for name, value in sizes if name.startswith("pengi_batch_size_sum"))
    steps, rows = (float(metrics[f"pengi_step_rows_{kind}"]) for kind in ("count", "sum"))
    return {
        "seconds": spent_s,
        "requests": sum(tally.statuses.values()),
        "statuses": dict(tally.statuses),
        "server_errors": sum(count for status, count in tally.statuses.items() if status.startswith("5")),
        "unexpected": tally.unexpected[:10],
        "unexpected_count": len(tally.unexpected),
        "wrong_answers": tally.wrong[:10],
        "wrong_count": len(tally.wrong),
        "answers_per_s": len(tally.good_s) / spent_s,
        "good_latency_s": quantiles(tally.good_s),
        "refusal_latency_s": quantiles(tally.bad_s),
        "mean_batch": recordings / calls if calls else None,
        "mean_rows_of_a_step": rows / steps if steps else None,
        "left_in_flight": float(metrics["pengi_requests_in_flight"]),
        "left_jobs": float(metrics["pengi_jobs"]),
        "rss_mb": {"start": memory[0], "peak": max(memory), "end": memory[-1]},
        "rss_mb_every_5_s": [round(value) for value in memory[::5]],
    }


def quantiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"p50": float(np.quantile(values, 0.5)), "p95": float(np.quantile(values, 0.95)), "max": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--batch", type=int, default=8, help="of the run with batches")
    parser.add_argument("--model", default="pengi-mini")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    good, bad = good_requests(options.model), bad_requests(options.model)
    results: dict[str, Any] = {
        **run_record(),
        "clients": options.clients,
        "share_of_bad_requests": SHARE_OF_BAD,
    }
    for name, batch in (("batched", options.batch), ("one_by_one", 1)):
        with server(options.model, batch) as (url, pid):

            def run(seed: int, until: float, tally: Tally, url: str = url) -> None:
                client(url, until, seed, good, bad, tally)

            results[name] = {"batch": batch, **loaded(url, pid, run, options.clients, options.seconds)}
    write_results(results, options.out)


if __name__ == "__main__":
    main()
