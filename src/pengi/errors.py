"""The errors that a user can cause.

Every error a user can cause is a :class:`PengiError` whose message is one plain sentence that says what is wrong and,
where it helps, what to do. The command line prints it and exits with code 2; a job stores it in a row.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS = ("no space left on", "os error 28", "errno 28", "disk is full", "disk quota exceeded")
"""Parts of the messages for a full disk in libraries that do not raise an OSError."""
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""The form of NumPy's message."""


class PengiError(Exception):
    """Base class of the errors that a user can cause; the message is one sentence."""


class ConfigError(PengiError):
    """A model configuration or a recipe has an unknown key, a wrong type or an impossible combination."""


class AudioError(PengiError):
    """A recording is missing, is not audio, is truncated, is empty or has samples that are not finite."""


class WeightsError(PengiError):
    """Weights cannot be found, fetched or verified."""


class CheckpointError(PengiError):
    """A checkpoint folder or file is incomplete, malformed or of another architecture."""


class ManifestError(PengiError):
    """A manifest or a labels file has a bad row; the message carries the line number."""


class InputError(PengiError):
    """An argument of a call is invalid, such as an empty label list, a negative window or an unknown task."""


class TrainingError(PengiError):
    """A training run cannot continue."""


def how_to_install(extra: str) -> str:
    """The command that installs an extra, from the package's own folder, since the package is on no package index."""
    return f"in the cloned folder of pengi, run: pip install -c constraints.txt '.[{extra}]'"


def no_such(what: str, name: str, known: Iterable[str]) -> str:
    """The message for an unknown name; it lists the most similar known name, or all."""
    names = list(known)
    near = get_close_matches(str(name), names, 1)  # an argument of a call may be of any type
    hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(names)}"
    return f"there is no {what} '{name}'; {hint}"


def reason(error: Exception) -> str:
    """Why the operating system refused, as the end of a sentence: "permission denied"."""
    if is_disk_full(error):
        return "no space left on the disk"
    text = first_line(getattr(error, "strerror", None) or error)
    if not text:
        return type(error).__name__
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def first_line(text: object) -> str:
    """The first line of a message."""
    return str(text).strip().partition("\n")[0]


def unwritten(path: Path | str, error: Exception) -> str:
    """The sentence for a file or folder that could not be written."""
    if is_disk_full(error):
        return f"'{path}' could not be written: no space left on the disk that holds '{Path(path).parent}'"
    return f"'{path}' could not be written: {reason(error)}"


def is_disk_full(error: BaseException | str) -> bool:
    """Whether an error of the operating system or a library, or its text, means that a disk or a quota is full."""
    if getattr(error, "errno", None) in _FULL:
        return True
    return any(text in str(error).lower() for text in _FULL_TEXTS) or bool(_SHORT_WRITE.fullmatch(str(error)))


def checked_text(text: object, what: str) -> str:
    """The text itself, if it is one that tokenizers can read.

    Raises:
        InputError: if it is not a string, or not valid Unicode, which can happen in text from JSON or a command line.
    """
    if not isinstance(text, str):
        raise InputError(f"{what} must be a string, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} is not valid Unicode: character {error.start + 1} is half of a surrogate pair"
        ) from error
    return text
