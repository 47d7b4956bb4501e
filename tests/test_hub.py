"""Models of the Hugging Face hub, with the hub's own client against a stand-in on this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import uvicorn
from typer.testing import CliRunner

from helpers import RATE, tiny_model, tone
from helpers.hub import Hub, Repository
from pengi import Pengi, checkpoint
from pengi.cli import app
from pengi.errors import CheckpointError, WeightsError
from pengi.weights import hub as hub_weights

TOKEN = "hf_test"
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny model, and a pickle beside it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    checkpoint.save(tiny_model(), folder, card="# tiny\n\nA model for tests.\n")
    (folder / "optimizer.pt").write_bytes(b"\x80a pickle")
    return folder


@pytest.fixture(scope="module")
def _server() -> Iterator[tuple[str, Hub]]:
    hub = Hub(TOKEN)
    server = uvicorn.Server(uvicorn.Config(hub.app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}", hub
        server.should_exit = True
        thread.join(PATIENCE_S)


@pytest.fixture
def hub(_server: tuple[str, Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """An empty hub, which the client takes for the real one, and an empty cache."""
    url, hub = _server
    hub.repositories.clear()
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def published(hub: Hub, folder: Path, repo: str = "someone/tiny") -> Repository:
    """The checkpoint as a repository, with everything that is in its folder."""
    hub.repositories[repo] = Repository()
    hub.repositories[repo].commit("main", {file.name: file.read_bytes() for file in folder.iterdir()})
    return hub.repositories[repo]


def test_a_model_is_loaded_by_its_name_and_its_pickles_are_left(hub: Hub, folder: Path) -> None:
    published(hub, folder)
    engine = Pengi.from_pretrained("someone/tiny", device="cpu")
    assert engine.name == "someone/tiny"
    assert engine.describe((tone(1.0), RATE)) == Pengi.from_pretrained(folder, device="cpu").describe((tone(1.0), RATE))
    assert any("model.safetensors" in request for request in hub.requests)
    assert not any("optimizer.pt" in request for request in hub.requests)


def test_a_revision_pins_what_is_loaded(hub: Hub, folder: Path) -> None:
    repository = published(hub, folder)
    first = repository.refs["main"]
    repository.refs["v1"] = first
    repository.commit("main", {"config.json": b"{}"})
    for name, revision in (("someone/tiny@v1", None), ("someone/tiny", "v1"), (f"someone/tiny@{first}", None)):
        folder_of = checkpoint.model_folder(name, revision=revision)
        assert folder_of.name == first
    assert checkpoint.model_folder("someone/tiny").name != first
    with pytest.raises(WeightsError, match="the repository has no such revision"):
        checkpoint.model_folder("someone/tiny@v2")
    with pytest.raises(CheckpointError, match="not a repository of the Hugging Face hub"):
        checkpoint.model_folder(folder, revision="v1")


def test_what_was_fetched_is_found_without_a_network(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(hub, folder)
    with pytest.raises(WeightsError, match="cache does not hold the model"):
        checkpoint.model_folder("someone/tiny", local_files_only=True)
    fetched = checkpoint.model_folder("someone/tiny")
    hub.requests.clear()
    assert checkpoint.model_folder("someone/tiny", local_files_only=True) == fetched
    assert hub.requests == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert checkpoint.model_folder("someone/tiny") == fetched
    assert hub.requests == []


def test_what_is_missing_is_said(hub: Hub, folder: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"there is no folder 'no/body', and .*: the Hugging Face hub has no such repository"
    ):
        checkpoint.model_folder("no/body")
    hub.repositories["someone/empty"] = Repository()
    hub.repositories["someone/empty"].commit("main", {"pytorch_model.bin": b"\x80", "config.json": b"{}"})
    with pytest.raises(WeightsError, match=r"has no model\.safetensors"):
        checkpoint.model_folder("someone/empty")


def test_paths_are_no_repositories() -> None:
    names = ("pengi-mini", "./a/b", "../a/b", "../a", "./a", "/a/b", "a/b/c", "a/b@", "")
    assert [name for name in names if hub_weights.is_repository(name)] == []
    assert hub_weights.is_repository("user/model")
    assert hub_weights.is_repository("user/model@refs/pr/1")


def test_a_model_is_uploaded_with_a_card_and_loaded_again(hub: Hub, folder: Path) -> None:
    engine = Pengi.from_pretrained(folder, device="cpu")
    url = engine.push_to_hub("me/tiny", private=True)
    repository = hub.repositories["me/tiny"]
    assert url.endswith(repository.refs["main"])
    assert repository.private
    commit = repository.files("main")
    assert commit is not None
    assert set(commit[1]) == {"config.json", "model.safetensors", "README.md"}
    card = commit[1]["README.md"].decode()
    assert card.startswith("---\n")
    assert "library_name: pengi" in card
    assert "A model for tests." in card
    assert 'Pengi.from_pretrained("me/tiny")' in card
    assert (folder / "README.md").read_text() == "# tiny\n\nA model for tests.\n"
    again = Pengi.from_pretrained("me/tiny", device="cpu")
    assert again.describe((tone(1.0), RATE)) == engine.describe((tone(1.0), RATE))


def test_the_command_uploads_to_a_branch(hub: Hub, folder: Path) -> None:
    result = CliRunner().invoke(app, ["push", str(folder), "me/tiny"])
    assert result.exit_code == 0, result.stderr
    result = CliRunner().invoke(app, ["push", str(folder), "me/tiny", "--revision", "trial"])
    assert result.exit_code == 0, result.stderr
    assert set(hub.repositories["me/tiny"].refs) == {"main", "trial"}


def test_a_refused_token_is_a_sentence(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    result = CliRunner().invoke(app, ["push", str(folder), "me/tiny"])
    assert result.exit_code == 2
    said = "error: 'me/tiny' cannot be uploaded: the Hugging Face hub needs a token with write access; set HF_TOKEN\n"
    assert result.stderr == said


def test_no_network_is_a_sentence(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{bound.getsockname()[1]}")
    with pytest.raises(WeightsError, match="'me/tiny' cannot be uploaded: the Hugging Face hub cannot be reached"):
        hub_weights.push(folder, "me/tiny")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        hub_weights.push(folder, "me/tiny")


def test_what_cannot_be_uploaded_is_refused_before(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="was not loaded from a checkpoint"):
        Pengi(tiny_model(), "tiny", torch.device("cpu")).push_to_hub("a/b")
    with pytest.raises(WeightsError, match="write user/model"):
        hub_weights.push(tmp_path, "tiny")
    assert hub.requests == []
