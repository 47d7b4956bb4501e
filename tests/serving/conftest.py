"""Engines and clients that the tests of the server share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
import torch

from helpers import tiny_model
from helpers.serving import HeldEngine, StepSpy, serving
from pengi import Pengi, calls, timelines
from pengi.generation import TextGenerator
from pengi.serving import app as serving_app


@pytest.fixture(scope="session")
def tiny() -> Iterator[Pengi]:
    """A tiny random engine, whose texts are cut short since it hardly ever ends one on its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timelines, "TIMELINE", replace(timelines.TIMELINE, max_tokens=6))
        for name in ("DESCRIBE", "ANSWER"):
            patch.setattr(calls, name, replace(getattr(calls, name), max_tokens=6))
            patch.setattr(serving_app, name, getattr(calls, name))
        yield Pengi(tiny_model(), "tiny", torch.device("cpu"))


@pytest.fixture
def held() -> Iterator[HeldEngine]:
    """An engine that waits for its ``free``; set free in the end, so that nothing hangs."""
    engine = HeldEngine()
    yield engine
    engine.free.set()


@pytest.fixture(scope="session")
def client(tiny: Pengi) -> Iterator[httpx.Client]:
    """A client of one server for many tests, with limits that are soon reached."""
    with serving(tiny, max_upload_mb=2, max_seconds=60) as client:
        yield client


@pytest.fixture(scope="session")
def with_page() -> Iterator[httpx.Client]:
    """A client of a server with a page, that no origin was allowed for."""
    held = HeldEngine()
    held.free.set()
    with serving(held, page=True) as client:
        yield client


@pytest.fixture
def steps(tiny: Pengi, monkeypatch: pytest.MonkeyPatch) -> StepSpy:
    """The steps of the tiny engine, whose texts do not end before their last token."""
    monkeypatch.setattr(TextGenerator, "stop_ids", [])
    return StepSpy(tiny, monkeypatch)
