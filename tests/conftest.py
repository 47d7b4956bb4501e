"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers import tiny_model
from pengi import Pengi, calls, checkpoint, labelling, timelines, weights
from pengi.language_model import LanguageModel

SHARED_DATA = Path(__file__).resolve().parents[1] / "../shared/data"
SHARED_CASES = SHARED_DATA.parent / "cases"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real, labelled recordings; tests that need it are skipped where it is not."""
    if not (SHARED_DATA / "manifest.jsonl").is_file():
        pytest.skip("the real recordings (../shared/data beside the repository) are not here")
    return SHARED_DATA


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of files that real programs write and that are easily read wrongly; as :func:`shared_data`."""
    if not (SHARED_CASES / "README.md").is_file():
        pytest.skip("the files of real programs (../shared/cases beside the repository) are not here")
    return SHARED_CASES


@pytest.fixture(scope="session")
def pengi_mini() -> Pengi:
    """The model of the package; tests that need it are skipped where the frozen parts are not there."""
    parts = ("smollm2-135m-instruct", "whisper-tiny.en", "yamnet", "all-minilm-l6-v2")
    missing = [name for name in parts if weights.cached(name) is None]
    if missing:
        pytest.skip(f"frozen parts are not on this machine (pengi pull pengi-mini): {', '.join(missing)}")
    return Pengi.from_pretrained("pengi-mini", device="cpu")


@pytest.fixture(scope="session")
def smollm2() -> LanguageModel:
    """The language model of ``pengi-mini`` in torch; as :func:`pengi_mini`."""
    folder = weights.cached("smollm2-135m-instruct")
    if folder is None:
        pytest.skip("the weights of smollm2-135m-instruct are not in the cache; 'pengi pull' fetches them")
    return LanguageModel.from_folder(folder)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    checkpoint.save(tiny_model(), folder, card="# tiny\n")
    return folder


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    """One second of a 440 Hz tone, 16 kHz mono."""
    path = tmp_path / "tone.wav"
    time_s = np.arange(16_000) / 16_000
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * time_s), 16_000)
    return path


@pytest.fixture
def bad_files(tmp_path: Path, tone: Path) -> dict[str, Path]:
    """Recordings that cannot be used, by what is wrong with them."""
    folder = tmp_path / "bad"
    folder.mkdir()
    paths = {kind: folder / f"{kind}.wav" for kind in ("missing", "empty", "truncated", "text")}
    paths["empty"].write_bytes(b"")
    paths["truncated"].write_bytes(tone.read_bytes()[:1000])
    paths["text"].write_text("This is a shopping list: milk, bread, eggs.\n" * 20, encoding="utf-8")
    return paths


@pytest.fixture
def heeding_ctrl_c() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C, and so would the processes that the tests start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of a few tokens, since a random model hardly ever ends a text on its own."""
    for module, name in ((calls, "DESCRIBE"), (calls, "ANSWER"), (timelines, "TIMELINE"), (labelling, "MATCH")):
        monkeypatch.setattr(module, name, replace(getattr(module, name), max_tokens=8))
