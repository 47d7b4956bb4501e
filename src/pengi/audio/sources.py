"""Converts all forms in which a caller may give a recording to the few forms that ``decode`` reads.

Shape suffixes: C channels, S samples.
"""

from __future__ import annotations

import inspect
import io
import math
import os
from collections.abc import Mapping, Sequence
from numbers import Number
from typing import IO, Any, NamedTuple, Protocol, SupportsFloat, TypeAlias, TypedDict, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pengi.errors import AudioError, InputError, reason

MAX_FLOAT = 8.0
"""Largest float sample of an array, 18 dB above full scale. Larger samples were probably never scaled to [-1, 1]."""
MAX_INT16, MAX_INT32 = 2**15, 2**31
FORMS = (
    "a path, the bytes of a file, a file opened in binary mode, a tuple (samples, rate) or a dictionary"
    " {'array': samples, 'sampling_rate': rate}"
)


class Waveform(NamedTuple):
    """Samples that are known to be valid, such as decoded ones; they are used without further checks."""

    samples: NDArray[Any]
    """``[C, S]`` or ``[S]``. Floats have full scale at 1, integers at the end of their type's range."""
    sample_rate: int
    """In Hz."""


class DecodedAudio(Protocol):
    """The result of torchcodec's decoders: samples ``[C, S]`` and their rate in Hz."""

    @property
    def data(self) -> object: ...

    @property
    def sample_rate(self) -> object: ...


class AudioDecoder(Protocol):
    """A file that was opened by torchcodec, or by a dataset of Hugging Face."""

    def get_all_samples(self) -> DecodedAudio: ...


AudioSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | tuple[ArrayLike, SupportsFloat]
    | Mapping[str, object]
    | DecodedAudio
    | AudioDecoder
)
"""One recording:

* a path;
* the content of a file;
* an open binary file, which is read from its start (from its current position if it cannot seek) and left open;
* ``(samples, rate)``, the rate in Hz;
* a dictionary of Hugging Face: ``{"array", "sampling_rate"}``, ``{"raw", "sampling_rate"}`` or ``{"bytes", "path"}``;
* an ``AudioDecoder`` or ``AudioSamples`` of torchcodec.

``samples`` is a NumPy array, a torch tensor or a list of numbers, ``[S]``, ``[C, S]`` or ``[S, C]``: the shorter of two
axes is that of the channels, or the first if both are equally long. Leading axes of length 1 are dropped. Full scale is
1 for floats, 2^7 for int8, 2^15 for int16 and 2^31 for wider integers; uint8 and uint16 are centred on the middle of
their range. Wider integers whose values all fit into 16 bits, and floats beyond 8, are refused, since their scale is
unknown.
"""


class Series(Protocol):
    """A column of pandas or polars."""

    def to_numpy(self) -> NDArray[Any]: ...


S = TypeVar("S")
Many: TypeAlias = Sequence[S] | NDArray[np.object_] | NDArray[np.str_] | Series
"""The types that :func:`listed` treats as a list of recordings."""


class ReadingOptions(TypedDict, total=False):
    """Options for reading a recording."""

    track: int | None
    """Which of several sound tracks, counted from 1; None is the default one."""
    partial: bool
    """Whether a damaged recording is read up to the damage."""


PlainSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Waveform
_PLAIN = (str, os.PathLike, bytes, bytearray, memoryview, Waveform)


def resolve(source: AudioSource) -> PlainSource:
    """Convert a recording to one of the forms that ``decode`` reads.

    Raises:
        InputError: if it has an unsupported type, or its samples have an unknown scale or shape.
        AudioError: if it has no samples, or its sample rate is not an integer.
    """
    given: Any = source
    if isinstance(given, _PLAIN):
        return given
    if isinstance(given, Mapping):
        return _from_mapping(given)
    if isinstance(given, tuple):
        return _from_tuple(given)
    if hasattr(given, "get_all_samples"):
        return _from_decoder(given)
    if hasattr(given, "data") and hasattr(given, "sample_rate"):
        return _waveform(given.data, given.sample_rate, describe_source(given))
    if hasattr(given, "read"):
        return _readable(given)
    if _is_samples(given):
        raise InputError(f"samples need their sample rate: give a tuple (samples, rate), not {_type_name(given)} alone")
    if hasattr(given, "__next__"):
        raise InputError("an iterator cannot be used as a list of recordings; turn it into one with list(...)")
    raise InputError(f"audio must be {FORMS}, not {_type_name(given)}")


def listed(audio: Any) -> list[Any] | None:
    """The recordings of a list, or None if ``audio`` is a single one.

    A list is any sequence or series (pandas, polars), or a NumPy array of paths or other objects. A pair is one
    recording if it can be read as ``(samples, rate)``.
    """
    if isinstance(audio, (*_PLAIN, Mapping)):
        return None
    if isinstance(audio, tuple):
        return None if _is_pair(audio) else list(audio)
    if isinstance(audio, np.ndarray):
        return list(audio) if audio.ndim == 1 and audio.dtype.kind not in "biufc" else None
    if isinstance(audio, Sequence):
        return None if len(audio) and isinstance(audio[0], Number) else list(audio)
    is_series = hasattr(audio, "to_numpy") and not hasattr(audio, "columns")
    return list(audio) if is_series else None


def recordings_of(audio: object) -> tuple[list[Any], bool]:
    """The recordings, and whether they are given as a list; see :func:`listed`."""
    items = listed(audio)
    return ([audio], False) if items is None else (items, True)


def describe_source(source: AudioSource) -> str:
    """Short name of a recording for messages: its path as given, or a description of its type."""
    given: Any = source
    if isinstance(given, (str, os.PathLike)):
        return os.fspath(given)
    if isinstance(given, (bytes, bytearray, memoryview)):
        return "audio in memory"
    if isinstance(given, Mapping):
        path = given.get("path")
        if isinstance(path, (str, os.PathLike)) and path:
            return os.fspath(path)
        return "audio in memory" if given.get("bytes") is not None else "audio array"
    if isinstance(given, tuple) or hasattr(given, "sample_rate"):
        return "audio array"
    name = getattr(given, "name", None)
    return name if isinstance(name, str) and name else "audio stream"


def no_samples(name: str) -> AudioError:
    """The error for a recording of length 0."""
    return AudioError(f"'{name}' holds no audio samples")


class _Unseekable:
    """A file object that has only the method ``read``."""

    def __init__(self, file: Any) -> None:
        self.read = file.read

    def seekable(self) -> bool:
        return False


def _readable(file: Any) -> IO[bytes]:
    name = describe_source(file)
    if isinstance(getattr(file, "file", file), io.TextIOBase):  # temporary files are wrappers
        raise InputError(f"'{name}' is opened in text mode; open it in binary mode ('rb') or give its path")
    if getattr(file, "closed", False) is True:
        raise InputError(f"'{name}' is a closed file; open it again or give its path")
    if inspect.iscoroutinefunction(file.read):
        raise InputError(f"'{name}' has an asynchronous read; give the bytes that it returns")
    return cast("IO[bytes]", file if hasattr(file, "seekable") else _Unseekable(file))


def _from_mapping(given: Mapping[str, Any]) -> PlainSource:
    for key in ("array", "raw"):
        if given.get(key) is not None:
            if given.get("sampling_rate") is None:
                raise InputError(f"a dictionary with '{key}' needs the rate in Hz under 'sampling_rate'")
            return _waveform(given[key], given["sampling_rate"], describe_source(given))
    for key, types in (("bytes", (bytes, bytearray, memoryview)), ("path", (str, os.PathLike))):
        value = given.get(key)
        if isinstance(value, types):
            return value
        if value is not None:
            raise InputError(f"'{key}' of a dictionary cannot be {_type_name(value)}")
    raise InputError(
        "a recording as a dictionary has 'array' or 'raw' with 'sampling_rate', or 'bytes' or 'path'; this one has"
        f" {', '.join(repr(key) for key in given if given[key] is not None) or 'nothing'}"
    )


def _from_tuple(given: tuple[Any, ...]) -> Waveform:
    if len(given) != 2:
        raise InputError(f"an audio array is given with its sample rate, as a tuple (samples, rate), not {len(given)}")
    samples, rate = given
    if _is_number(samples) and not _is_number(rate):
        raise InputError(
            "a tuple has the order (samples, rate); swap the two where the rate comes first, as from SciPy or Gradio"
        )
    return _waveform(samples, rate, describe_source(given))


def _from_decoder(decoder: AudioDecoder) -> Waveform:
    name = describe_source(decoder)
    try:
        decoded = decoder.get_all_samples()
    except (RuntimeError, ValueError, OSError) as error:
        raise AudioError(f"'{name}' cannot be decoded: {reason(error)}") from error
    return _waveform(decoded.data, decoded.sample_rate, name)


def _waveform(samples: Any, rate: Any, name: str) -> Waveform:
    sample_rate = _whole_rate(rate, name)
    values = _as_array(samples)
    while values.ndim > 2 and len(values) == 1:
        values = values[0]
    if values.dtype.kind not in "fiu" or values.ndim not in (1, 2):
        raise InputError(
            f"audio samples must be real numbers with one or two axes, not {values.dtype} of shape {values.shape};"
            " give several recordings as a list"
        )
    if not values.size:
        raise no_samples(name)
    values_CS = np.atleast_2d(values)
    values_CS = values_CS if values_CS.shape[0] <= values_CS.shape[1] else values_CS.T
    return Waveform(_known_scale(values_CS), sample_rate)


def _whole_rate(rate: Any, name: str) -> int:
    """The rate as an integer, from any type that holds one number."""
    if not _is_number(rate):
        raise InputError(f"the sample rate must be a number of Hz, not {_type_name(rate)}")
    value = rate.item() if hasattr(rate, "item") else rate
    if not (math.isfinite(value) and value >= 1 and value == int(value)):
        raise AudioError(f"'{name}' has a sample rate of {value} Hz; it must be a whole number")
    return int(value)


def _as_array(samples: Any) -> NDArray[Any]:
    if hasattr(samples, "detach"):
        return _from_tensor(samples)
    try:
        return np.asarray(samples)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            "the samples are not an array: every channel must be as long as the others, and every sample a number"
        ) from error


def _from_tensor(tensor: Any) -> NDArray[Any]:
    """A torch tensor as an array, even if NumPy lacks its type; this module does not import torch."""
    try:
        dense = tensor.float() if tensor.is_floating_point() else tensor
        return np.asarray(dense.detach().cpu().numpy())
    except (TypeError, RuntimeError) as error:  # sparse, quantized, or without data
        raise InputError(
            f"a tensor of {tensor.dtype} on '{tensor.device}' holds no plain samples: give a dense one with data"
        ) from error


def _known_scale(values_CS: NDArray[Any]) -> NDArray[Any]:
    """The samples; wider integers are converted to int32.

    Raises:
        InputError: if it is unknown which value is full scale.
    """
    kind, width = values_CS.dtype.kind, values_CS.dtype.itemsize
    if kind == "f":
        _check_floats(values_CS)
        return values_CS
    if width <= 2:
        return values_CS
    if kind == "u":
        raise InputError(f"samples of type {values_CS.dtype} have no usual scale; convert them to floats in [-1, 1]")
    low, high = int(values_CS.min()), int(values_CS.max())
    if low < -MAX_INT32 or high >= MAX_INT32:
        raise InputError(f"samples of type {values_CS.dtype} exceed 32 bits; convert them to floats in [-1, 1]")
    if (low or high) and low >= -MAX_INT16 and high < MAX_INT16:
        raise InputError(
            f"samples of type {values_CS.dtype} all lie within the 16-bit range: convert them to int16 if they are"
            " 16-bit samples, or divide them by 2**31 (float) if they are very quiet 32-bit samples"
        )
    return values_CS.astype(np.int32, copy=False)


def _check_floats(values_CS: NDArray[Any]) -> None:
    peak = max(float(np.fmax.reduce(values_CS, axis=None)), -float(np.fmin.reduce(values_CS, axis=None)))
    # Values that are not finite, or are beyond float32, are reported with their time when they are read.
    if not MAX_FLOAT < peak < float(np.finfo(np.float32).max):
        return
    bits = next((bits for bits in (16, 24, 32) if peak <= 2 ** (bits - 1)), None)
    advice = f"divide by {2 ** (bits - 1)}, if they were {bits}-bit integers" if bits else "scale them down"
    raise InputError(f"float samples must lie in [-1, 1], and these reach {peak:.6g}: {advice}")


def _is_pair(given: tuple[Any, ...]) -> bool:
    return len(given) == 2 and (_is_number(given[0]) or _is_number(given[1]) or _is_samples(given[0]))


def _is_number(value: Any) -> bool:
    """Whether a value is one real number, as a Python number, an array or a tensor."""
    if hasattr(value, "item") and hasattr(value, "shape") and math.prod(value.shape) == 1:
        value = value.item()
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_samples(value: Any) -> bool:
    """Whether a value is an array, a tensor or a list of numbers."""
    if hasattr(value, "detach") or isinstance(value, np.ndarray):
        return True
    numbers = isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview))
    return numbers and len(value) > 0 and isinstance(value[0], Number)


def _type_name(value: Any) -> str:
    return type(value).__name__
