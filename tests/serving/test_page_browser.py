"""The page in a real browser, with the shipped model and real recordings."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from playwright import sync_api as playwright

from helpers.serving import running
from pengi.audio.decode import load
from pengi.engine import Pengi
from pengi.serving.app import create_app
from pengi.serving.settings import ServingSettings

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]
PATIENCE_MS = 90_000
CUT_OFF = """Array.from(document.querySelectorAll(".pg-name"))
    .filter(name => name.scrollHeight > name.clientHeight + 6 || name.scrollWidth > name.clientWidth)
    .map(name => name.textContent)"""
"""The names of lanes that are cut off; fonts may exceed the height of their lines a little."""
QUESTION = "Is it ${1 + 1} or {{value}} <b>dogs</b>?"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@dataclass
class Watched:
    """A browser's page, and what went wrong or out while it was open."""

    page: Any
    foreign: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def shown(self, selector: str) -> Any:
        """The first such element, once it is visible."""
        return self.page.wait_for_selector(selector, timeout=PATIENCE_MS)

    def open(self, path: Path) -> None:
        """Give the page a file, and wait for its description."""
        self.page.set_input_files("#pg-upload input[type=file]", str(path))
        self.shown(f'#pg-sound figcaption:has-text("{path.name}")')
        self.shown(".pg-caption")

    def barriers(self) -> list[str]:
        """The serious findings of axe-core: the rule, and the elements that break it or may break it."""
        axe = pytest.importorskip("axe_playwright_python.base", reason="axe-core comes with the extra 'test'")
        self.page.evaluate(axe.AXE_SCRIPT)
        found = self.page.evaluate("axe.run({resultTypes: ['violations', 'incomplete']})")
        # A contrast is "incomplete" where the background consists of several elements.
        unsure = [result for result in found["incomplete"] if result["id"] != "color-contrast"]
        return [
            f"{result['id']}: {node['target']}"
            for result in (*found["violations"], *unsure)
            if result["impact"] in ("serious", "critical")
            for node in result["nodes"]
        ]

    def second(self) -> float:
        return float(self.page.evaluate("document.querySelector('#pg-sound audio').currentTime"))


@pytest.fixture(scope="module")
def address(pengi_mini: Pengi) -> Iterator[str]:
    hit = SimpleNamespace(path=str(EXAMPLES / "siren.opus"), start_s=2.0, end_s=3.0, text="a siren", score=0.9)
    collection = SimpleNamespace(search=lambda *_words, **_query: [hit])
    app = create_app(pengi_mini, ServingSettings(max_upload_mb=2, max_seconds=60), collection=collection)
    with running(app) as (url, _):
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(address: str, browser: Any) -> Iterator[Any]:
    """Opens the page in a window of some width; at the end nothing may have been asked of another host."""
    visits: list[Watched] = []

    def opened(width: int = 1280, **options: Any) -> Watched:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        watched = Watched(context.new_page())
        visits.append(watched)
        page = watched.page
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: watched.failures.append(str(error)))
        page.on("request", lambda request: _note_foreign(watched, request.url, address))
        page.goto(address)
        watched.shown("#pg-upload button")
        return watched

    yield opened
    for watched in visits:
        watched.page.context.close()
        assert not watched.foreign
        assert not watched.failures


def _note_foreign(watched: Watched, url: str, address: str) -> None:
    if not url.startswith((address, "data:", "blob:")):
        watched.foreign.append(url)


def test_a_recording_from_drop_to_labels(visit: Any, tmp_path: Path) -> None:
    """One visit, since loading the page is the slowest part: describe, ask, timeline, play, labels, a bad file."""
    yard = tmp_path / "yard.wav"
    parts = [load(EXAMPLES / f"{name}.opus", 16_000)[:32_000] for name in ("dog", "siren")]
    soundfile.write(yard, np.concatenate(parts), 16_000)
    watched = visit()
    page = watched.page
    watched.open(yard)
    assert "4.0 s" in page.inner_text("#pg-sound figcaption")
    assert re.search(r"\d%", page.inner_text(".pg-bars"))

    page.fill("#pg-question input", QUESTION)
    page.press("#pg-question input", "Enter")
    watched.shown(".pg-answer .pg-share")
    assert page.inner_text(".pg-question") == QUESTION
    assert page.input_value("#pg-question input") == ""

    page.click("#pg-time")
    watched.shown(".pg-lane button")
    bar = max(page.locator(".pg-lane button").all(), key=lambda bar: float(bar.get_attribute("data-seek")))
    start_s = float(bar.get_attribute("data-seek"))
    assert start_s >= 1.0
    bar.click()
    page.wait_for_function("!document.querySelector('#pg-sound audio').paused")
    assert start_s <= watched.second() <= 4.1
    page.click("[data-play]")
    page.wait_for_function("document.querySelector('#pg-sound audio').paused")
    page.select_option("[data-filter-label]", bar.get_attribute("data-label"))
    assert page.locator(".pg-lane:visible").count() == 1
    assert bar.is_visible()
    page.select_option("[data-filter-label]", "")
    assert page.locator(".pg-lane:visible").count() == page.locator(".pg-lane").count() > 1
    page.focus("[data-range]")
    page.keyboard.press("Home")
    assert watched.second() == 0.0

    page.click('role=tab[name="Try labels"]')
    page.fill("#pg-labels textarea", "dog barking, french horn, rain")
    page.click("#pg-classify")
    watched.shown("#pg-ranking li")
    assert page.locator("#pg-ranking li").count() == 3

    bad = tmp_path / "letter.wav"
    bad.write_text("Dear all, this is not a recording.\n" * 50)
    page.set_input_files("#pg-upload input[type=file]", str(bad))
    watched.shown(".pg-notice")
    assert page.inner_text(".pg-notice span") == "'letter.wav' is not audio in any format that can be read."
    page.click("[data-dismiss]")
    assert page.locator(".pg-notice").count() == 0
    assert "yard.wav" in page.inner_text("#pg-sound figcaption")


def test_a_phone_needs_no_sideways_scrolling_and_opens_what_was_found(visit: Any) -> None:
    watched = visit(width=390, has_touch=True, is_mobile=True, color_scheme="dark")
    page = watched.page
    page.click("text=Rooster")
    watched.shown(".pg-caption")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    page.click("#pg-time")
    watched.shown(".pg-lane button")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(CUT_OFF) == []
    page.click('role=tab[name="Search"]')
    page.fill("#pg-query input", "siren")
    page.click("#pg-find")
    watched.shown("#pg-hits [data-hit]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("#pg-hits [data-hit]")
    watched.shown('#pg-sound figcaption:has-text("siren.opus")')
    page.wait_for_function("document.querySelector('#pg-sound audio').currentTime >= 2")


@pytest.mark.parametrize("screen", [{"color_scheme": "light"}, {"width": 390, "color_scheme": "dark"}])
def test_axe_finds_no_serious_barrier(visit: Any, screen: dict[str, Any]) -> None:
    watched = visit(**screen)
    page = watched.page
    assert watched.barriers() == []
    page.click("text=Rooster")
    watched.shown(".pg-caption")
    page.click('button:has-text("What do you hear?")')
    watched.shown(".pg-answer .pg-share")
    page.click("#pg-time")
    watched.shown(".pg-lane button")
    assert watched.barriers() == []
    page.click('role=tab[name="Try labels"]')
    page.fill("#pg-labels textarea", "dog barking, rain")
    page.click("#pg-classify")
    watched.shown("#pg-ranking li")
    assert watched.barriers() == []
    page.click('role=tab[name="Search"]')
    page.fill("#pg-query input", "siren")
    page.click("#pg-find")
    watched.shown("#pg-hits [data-hit]")
    assert watched.barriers() == []


def test_the_keyboard_alone_opens_a_recording_and_plays_an_event(visit: Any) -> None:
    watched = visit()
    page = watched.page
    _tab_to(page, "Church bells")
    page.keyboard.press("Enter")
    watched.shown(".pg-caption")
    _tab_to(page, "What happens when?")
    page.keyboard.press("Enter")
    watched.shown(".pg-lane button")
    _tab_to(page, "Play 00:0")
    page.keyboard.press("Enter")
    page.wait_for_function("!document.querySelector('#pg-sound audio').paused")
    page.focus("#pg-question input")
    page.keyboard.type("Is it raining?")
    page.keyboard.press("Enter")
    watched.shown(".pg-answer .pg-share")


def _tab_to(page: Any, name: str) -> None:
    """Press the Tab key until an element with such a name has the focus."""
    named = "(e => e.getAttribute('aria-label') ?? e.textContent)(document.activeElement).trim()"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate(named).startswith(name):
            return
    raise AssertionError(f"the Tab key does not reach {name!r}")


def test_a_recording_from_the_microphone(visit: Any) -> None:
    watched = visit(permissions=["microphone"])
    page = watched.page
    page.click('button[aria-label="Record audio"]')
    page.click(".record-button")
    page.wait_for_timeout(1_200)
    page.click(".stop-button")
    watched.shown("#pg-sound")
    assert 0.2 < float(page.get_attribute("#pg-sound", "data-duration")) < 30


def test_a_file_that_is_too_large_is_refused(visit: Any, tmp_path: Path) -> None:
    watched = visit()
    large = tmp_path / "large.wav"
    soundfile.write(large, np.zeros(1_100_000, np.float32), 16_000)
    watched.page.set_input_files("#pg-upload input[type=file]", str(large))
    watched.shown("text=/maximum allowed size|at most/")
    assert watched.page.locator("#pg-sound").count() == 0
