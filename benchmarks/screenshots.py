"""Pictures of the page for the documentation: a description, a conversation and a timeline, on a desktop and a phone.

    python benchmarks/screenshots.py --out docs/images

A server with the page is started on a free port, and headless Chromium visits it. The timeline's recording is composed
of the examples. The phone uses dark colours.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import uvicorn
from fastapi import FastAPI
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from pengi.audio.decode import load
from pengi.engine import Pengi
from pengi.serving.page import mount

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CHROMIUM_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars"),
]
SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "color_scheme": "dark",
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}
SCENES = ("dog", "siren", "church-bells", "woman", "rooster")
RATE = 32_000
QUESTIONS = ("What do you hear?", "Is someone speaking?")
COLOURS = 256
MAX_BYTES = 250_000
PATIENCE_MS = 600_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the PNG files")
    parser.add_argument("--model", default="pengi-mini")
    parser.add_argument(
        "--recording", type=Path, default=EXAMPLES / "church-bells.opus", help="described and asked about"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Pengi.from_pretrained(options.model)) as address,
        sync_playwright() as driver,
    ):
        walk = composed(Path(folder) / "walk.flac")
        browser = driver.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        for screen in SCREENS:
            pictures(browser, screen, address, options.recording, walk, options.out)
        browser.close()


def pictures(browser: Browser, screen: str, address: str, recording: Path, walk: Path, out: Path) -> None:
    """The three pictures of one screen."""
    context = browser.new_context(**SCREENS[screen])
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#pg-upload button")
    give(page, recording)
    save(page, out / f"page-describe-{screen}.png")
    for index, question in enumerate(QUESTIONS):
        page.click(f'button:has-text("{question}")')
        page.wait_for_selector(f".pg-talk li:nth-child({index + 1}) .pg-answer .pg-share")
    page.locator("#pg-ask").scroll_into_view_if_needed()
    save(page, out / f"page-ask-{screen}.png")
    give(page, walk)
    page.click("#pg-time")
    page.wait_for_selector(".pg-lane button")
    page.click('.pg-lane button[data-label*="bell"] >> nth=0')
    page.wait_for_function("document.querySelector('#pg-sound audio').currentTime > 0")
    page.click("[data-play]")
    page.evaluate("document.querySelector('#pg-sound').scrollIntoView()")
    save(page, out / f"page-timeline-{screen}.png")
    context.close()


def give(page: Page, recording: Path) -> None:
    """Drop a recording and wait for its description."""
    page.set_input_files("#pg-upload input[type=file]", str(recording))
    page.wait_for_selector(f'#pg-sound figcaption:has-text("{recording.name}")')
    page.wait_for_selector(".pg-caption")


def save(page: Page, path: Path) -> None:
    """A picture of what is on the screen, in few colours."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # hover colours fade
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    assert size < MAX_BYTES, f"{path} has {size} bytes"
    print(f"{path}  {size / 1000:.0f} kB")


def composed(path: Path) -> Path:
    """Some of the examples, one after the other, each as loud as the others."""
    parts = [load(EXAMPLES / f"{name}.opus", RATE) for name in SCENES]
    soundfile.write(path, np.concatenate([0.6 * part / np.abs(part).max() for part in parts]), RATE)
    return path


@contextmanager
def serving(model: Pengi) -> Iterator[str]:
    """The address of a server that shows the page."""
    config = uvicorn.Config(mount(FastAPI(), model), port=0, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
