"""Models on the Hugging Face hub: a repository holds the files of a checkpoint.

A repository is named ``user/model``, and ``user/model@revision`` pins a branch, a tag or a commit. Only JSON, text and
safetensors files are read and written; pickles are not. Fetched files stay in the hub's own cache, where they are found
without a network. ``HF_HUB_OFFLINE=1`` forbids the use of the network, ``HF_ENDPOINT`` sets another hub, and
``HF_TOKEN`` is the token for private repositories.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pengi.errors import WeightsError
from pengi.weights.converters import WEIGHTS_FILE

FILES = ("*.safetensors", "*.json", "*.md", "*.txt")
CARD = "README.md"
HUB = "the Hugging Face hub"
_REFUSED = (401, 403)
"""HTTP statuses of requests without the right token."""
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def is_repository(name: str) -> bool:
    """Whether a name has the form of a repository, ``user/model`` or ``user/model@revision``."""
    return _NAME.fullmatch(name) is not None and not name.startswith(".")


def fetch(name: str, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """The folder of a model of the hub, which is fetched if it is not in the hub's cache.

    Args:
        name: see :func:`is_repository`.
        revision: branch, tag or commit, if the name has none.
        local_files_only: use only the cache, without a network.

    Raises:
        WeightsError: if there is no such repository or revision, it cannot be fetched, or it has no safetensors file.
    """
    from huggingface_hub import snapshot_download

    matched = _NAME.fullmatch(name)
    assert matched is not None, f"'{name}' is not a repository"
    repo, pinned = matched[1], matched[2] or revision
    try:
        folder = Path(
            snapshot_download(repo, revision=pinned, allow_patterns=list(FILES), local_files_only=local_files_only)
        )
    except _failures() as error:
        raise WeightsError(f"there is no folder '{name}', and it cannot be fetched: {_reason(error)}") from error
    if not (folder / WEIGHTS_FILE).is_file():
        raise WeightsError(f"the repository '{name}' has no {WEIGHTS_FILE}, so it holds no model of pengi")
    return folder


def push(
    folder: Path, repo: str, *, private: bool = False, revision: str | None = None, message: str | None = None
) -> str:
    """Upload the files of a checkpoint; the repository is made if there is none.

    Args:
        folder: of the checkpoint.
        repo: ``user/model``.
        private: whether a new repository is private.
        revision: branch to commit to, which is made if it is missing; by default the main branch.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        WeightsError: if the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi

    if not is_repository(repo) or "@" in repo:
        raise WeightsError(f"'{repo}' is not the name of a repository; write user/model")
    hub = HfApi(library_name="pengi")
    with TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        file = Path(copy, CARD)
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        file.write_text(card(text, repo), encoding="utf-8")
        try:
            hub.create_repo(repo, private=private, exist_ok=True)
            if revision is not None:
                hub.create_branch(repo, branch=revision, exist_ok=True)
            commit = hub.upload_folder(
                repo_id=repo,
                folder_path=copy,
                revision=revision,
                commit_message=message or "Upload a pengi model",
                allow_patterns=list(FILES),
            )
        except _failures() as error:
            raise WeightsError(f"'{repo}' cannot be uploaded: {_reason(error)}") from error
    return str(commit.commit_url)


def card(text: str, repo: str) -> str:
    """A model card for the hub: metadata, the text, and how to load the model.

    Args:
        text: the card of a checkpoint, which may already have metadata.
        repo: ``user/model``.
    """
    from huggingface_hub import ModelCard, ModelCardData

    if text.startswith("---\n"):
        return text
    head = ModelCardData(library_name="pengi", pipeline_tag="audio-text-to-text", tags=["audio", "pengi"])
    usage = f'## Use\n\n```python\nfrom pengi import Pengi\n\nmodel = Pengi.from_pretrained("{repo}")\n```\n'
    return str(ModelCard(f"---\n{head.to_yaml()}\n---\n\n{text.rstrip()}\n\n{usage}"))


def _failures() -> tuple[type[Exception], ...]:
    """The errors of the hub's client for a missing repository, a refusal, or an unreachable network."""
    from huggingface_hub import errors

    http_error: Any = errors.HfHubHTTPError.__bases__[0]  # of the HTTP library that the client is built on
    return (OSError, http_error, errors.HFValidationError, errors.RevisionResolutionError)


def _reason(error: Exception) -> str:
    """What went wrong, in one sentence."""
    from huggingface_hub import errors

    known: tuple[tuple[Any, str], ...] = (
        (errors.GatedRepoError, "the repository needs a token with read access; set HF_TOKEN"),
        (
            errors.RepositoryNotFoundError,
            f"{HUB} has no such repository, or it is private; set HF_TOKEN to get access",
        ),
        (errors.RevisionNotFoundError, "the repository has no such revision"),
        (errors.LocalEntryNotFoundError, f"{HUB} cannot be reached, and its cache does not hold the model"),
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set, so nothing can be sent; unset it"),
    )
    for kind, sentence in known:
        if isinstance(error, kind):
            return sentence
    if isinstance(error, errors.HfHubHTTPError):
        if error.response is not None and error.response.status_code in _REFUSED:
            return f"{HUB} needs a token with write access; set HF_TOKEN"
    elif isinstance(error, (ConnectionError, errors.HfHubHTTPError.__bases__[0])):
        return f"{HUB} cannot be reached ({' '.join(str(error).split())[:100]})"
    return " ".join(str(error).split())[:200]
