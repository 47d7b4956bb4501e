"""The systems that are measured on the same items: a model, the same model on silence, and the stock tagger.

A system takes items and an answer mode and returns texts and label scores. :mod:`pengi.evaluation.scoring` scores them
later, from the written predictions.

Shape suffixes: N texts, L labels, D features of an embedding.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from pengi import checkpoint, weights
from pengi.audio.level import SILENCE_DB
from pengi.calls import ANSWER
from pengi.decoding import DecodeOptions
from pengi.engine import Pengi
from pengi.errors import PengiError
from pengi.evaluation.baselines import YAMNET_MATCH, YamnetMatch
from pengi.evaluation.items import Item
from pengi.hashes import file_sha256, text_sha256
from pengi.text_encoder import SentenceEncoder, sentence_vectors

if TYPE_CHECKING:
    from pengi.encoding import Encoded
    from pengi.results import Answer, Classification, Generation

WRITE = DecodeOptions(beams=5, max_tokens=40)
"""The paper's beam width, for captions and metadata; questions are answered as by :meth:`pengi.Pengi.ask`."""
SILENCE_S, SILENCE_RATE = 5.0, 16_000
CHOICES = ("likelihood", "generate", "match")
"""Answer modes in which the engine chooses among labels."""
_MIN_LOG_SHARE = math.log(np.finfo(np.float32).tiny)
# Packages whose code does not change an answer.
_NOT_INFERENCE = ("cli", "training", "evaluation", "data", "jobs", "retrieval", "serving")


Match = Callable[[Sequence[Path], Sequence[str]], Sequence[tuple[float, ...] | PengiError]]
"""Returns for each recording the scores of the labels, or the error if it cannot be used."""


def search_of(item: Item) -> DecodeOptions:
    """The decoding options for a text about an item."""
    return ANSWER if item.is_question else WRITE


@dataclass(frozen=True)
class Reply:
    """The answer of a system about one item: a text, or a score for each label (higher is better), or both."""

    text: str | None = None
    scores: tuple[float, ...] | None = None


class System(Protocol):
    """Answers items.

    Attributes:
        name: shown in the results table.
        fingerprint: SHA-256 of everything besides the items that its answers depend on: weights, code, device.
        together: whether an item's answer depends on the other items of a call.
    """

    name: str
    fingerprint: str
    together: bool

    def input_of(self, item: Item, folder: Path) -> str:
        """SHA-256 of the recording that the system gets for an item."""

    def answer(self, items: Sequence[Item], folder: Path, mode: str) -> Sequence[Reply | PengiError]:
        """One reply for each item, or the error of a recording that cannot be used."""


class ModelSystem:
    """A trained model."""

    name = "model"
    together = False

    def __init__(self, engine: Pengi, fingerprint: str) -> None:
        self._engine = engine
        self.fingerprint = fingerprint

    def input_of(self, item: Item, folder: Path) -> str:
        return file_hash(folder / item.audio)

    def recording_of(self, item: Item, folder: Path) -> Any:
        """The recording that the engine gets for an item."""
        return folder / item.audio

    def answer(self, items: Sequence[Item], folder: Path, mode: str) -> list[Reply | PengiError]:
        if mode in CHOICES:
            return self._choose(items, folder, mode)
        return self._write(items, folder)

    def _choose(self, items: Sequence[Item], folder: Path, method: str) -> list[Reply | PengiError]:
        """Label scores; items with the same prompt and labels share a call."""
        replies: dict[int, Reply | PengiError] = {}
        alike: dict[tuple[str, tuple[str, ...]], list[int]] = defaultdict(list)
        for index, item in enumerate(items):
            alike[self._prompt(item), item.labels].append(index)
        for (prompt, labels), indices in alike.items():
            recordings = [self.recording_of(items[index], folder) for index in indices]
            found = self._engine.classify(recordings, labels, method=method, prompt=prompt, on_error="return")
            for index, outcome in zip(indices, found, strict=True):
                replies[index] = outcome if isinstance(outcome, PengiError) else _scored(outcome, labels)
        return [replies[index] for index in range(len(items))]

    def _prompt(self, item: Item) -> str:
        return self._engine.question_prompt(item.prompt) if item.is_question else item.prompt

    def _write(self, items: Sequence[Item], folder: Path) -> list[Reply | PengiError]:
        replies: dict[int, Reply | PengiError] = {}
        for is_question in (False, True):
            indices = [index for index, item in enumerate(items) if item.is_question == is_question]
            recordings = [self.recording_of(items[index], folder) for index in indices]
            prompts = [items[index].prompt for index in indices]
            found: Sequence[Answer | Generation | PengiError]
            if is_question:
                found = self._engine.ask(recordings, prompts, options=ANSWER, on_error="return")
            else:
                found = self._engine.generate(recordings, prompts, options=WRITE, on_error="return")
            for index, outcome in zip(indices, found, strict=True):
                replies[index] = outcome if isinstance(outcome, PengiError) else Reply(outcome.text)
        return [replies[index] for index in range(len(items))]


class BlindSystem(ModelSystem):
    """The model with silence in place of every recording, a baseline from the prompt and the labels alone."""

    name = "blind"

    def input_of(self, item: Item, folder: Path) -> str:
        return text_sha256(f"silence {SILENCE_S} {SILENCE_RATE}")

    def recording_of(self, item: Item, folder: Path) -> Any:
        return self._silence

    @cached_property
    def _silence(self) -> Encoded:
        """Encoded silence, with a level at which the engine still runs the model."""
        samples = np.zeros(round(SILENCE_S * SILENCE_RATE), dtype=np.float32)
        encoded: Encoded = self._engine.encode((samples, SILENCE_RATE))
        return replace(encoded, level_db=SILENCE_DB)


class TaggerSystem:
    """Stock YAMNet and a sentence encoder, without a language model; see :class:`~.baselines.YamnetMatch`."""

    together = True
    name = YAMNET_MATCH

    def __init__(self, match: Match) -> None:
        self._match = match
        self.fingerprint = text_sha256(f"{self.name} {code_hash()}")

    @classmethod
    def from_pretrained(cls) -> Self:
        """Stock weights.

        Raises:
            WeightsError: if the weights are not here and cannot be fetched.
        """
        return cls(YamnetMatch.from_pretrained())

    def input_of(self, item: Item, folder: Path) -> str:
        return file_hash(folder / item.audio)

    def answer(self, items: Sequence[Item], folder: Path, mode: str) -> list[Reply | PengiError]:
        assert len({item.labels for item in items}) == 1, "the tagger is asked about one set of labels"
        found = self._match([folder / item.audio for item in items], items[0].labels)
        return [outcome if isinstance(outcome, PengiError) else Reply(scores=outcome) for outcome in found]


@dataclass(frozen=True)
class Systems:
    """The systems of a run: a model, the same on silence, and the tagger, which is loaded when it is first needed.

    ``model`` is the system that is measured; it may be the tagger.
    """

    model: System
    blind: System | None
    tagger: Callable[[], System] | None
    about: Mapping[str, Any]

    @classmethod
    def of_engine(cls, engine: Pengi) -> Systems:
        """A loaded model and the baselines that go with it.

        Raises:
            WeightsError: if the model's files no longer exist.
        """
        model_sha256 = checkpoint.model_hash(engine.name)
        parts = f"{model_sha256} {code_hash()} {engine.device.type} {torch.__version__}"
        fingerprint = text_sha256(parts)
        about = {"name": engine.name, "sha256": model_sha256, "device": str(engine.device)}
        return cls(
            ModelSystem(engine, fingerprint),
            BlindSystem(engine, fingerprint),
            cache(TaggerSystem.from_pretrained),
            about,
        )

    @classmethod
    def of_tagger(cls) -> Systems:
        """The stock tagger alone, which needs no model.

        Raises:
            WeightsError: if its weights are not here and cannot be fetched.
        """
        tagger = TaggerSystem.from_pretrained()
        about = {"name": "yamnet", "sha256": weights.provenance("yamnet")["weights_sha256"], "device": "cpu"}
        return cls(tagger, None, None, about)


@cache
def code_hash() -> str:
    """SHA-256 of the part of the package's code that answers depend on."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        part = file.relative_to(root)
        if part.parts[0] not in _NOT_INFERENCE or part.as_posix() == "evaluation/systems.py":
            digest.update(f"{part.as_posix()} {len(file.read_bytes())}\n".encode() + file.read_bytes())
    return digest.hexdigest()


@cache
def file_hash(path: Path) -> str:
    """SHA-256 of a recording; of its name if it cannot be read, in which case the system returns the error."""
    try:
        return file_sha256(path)
    except OSError:
        return text_sha256(f"unreadable {path}")


@cache
def sentence_encoder() -> SentenceEncoder:
    """The stock sentence encoder for comparing texts.

    Raises:
        WeightsError: if it is not here and cannot be fetched.
    """
    return SentenceEncoder.from_folder(weights.resolve("all-minilm-l6-v2"))


def embed_texts(texts: Sequence[str]) -> NDArray[np.float32]:
    """Sentence embeddings of length one, ``float32[N, D]``."""
    return sentence_vectors(sentence_encoder(), texts)


def _scored(found: Classification, labels: Sequence[str]) -> Reply:
    """Logarithms of the shares in the order of ``labels``; a share of 0 counts as the smallest positive float."""
    share = {score.label: score.probability for score in found.scores}
    return Reply(found.text, tuple(math.log(share[label]) if share[label] > 0 else _MIN_LOG_SHARE for label in labels))
