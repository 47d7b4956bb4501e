"""Model configurations: frozen pydantic models in which an unknown key is an error that names the nearest key.

``config.json`` of a checkpoint is one :class:`ModelConfig`. It says which encoders, mappers, text encoder and language
model make up a Pengi, and nothing about how it was trained.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pengi.errors import ConfigError, reason

CONFIG_FILE = "config.json"


class Frozen(BaseModel):
    """Immutable settings; keys that are not fields are rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: dict[str, Any], origin: str) -> Self:
        """Validate ``values``; ``origin`` names the file or command they came from.

        Raises:
            ConfigError: for the first unknown key (with the nearest known one) or wrong value.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{origin}: {_explain(cls, values, error)}") from error


def _explain(model: type[BaseModel], values: dict[str, Any], error: ValidationError) -> str:
    # For a misspelt required field pydantic also reports that it is missing; the unknown key helps more.
    errors = error.errors()
    first = next((found for found in errors if found["type"] == "extra_forbidden"), errors[0])
    path = ".".join(_keys_on_the_way(values, first["loc"]))
    if first["type"] == "extra_forbidden":
        unknown = str(first["loc"][-1])
        near = difflib.get_close_matches(unknown, sorted(_known_keys(model)), n=1, cutoff=0.0)
        return f"unknown key '{path}'; did you mean '{near[0]}'?" if near else f"unknown key '{path}'"
    message = first["msg"].removeprefix("Value error, ")
    return f"'{path}': {message[:1].lower()}{message[1:]}"


def _keys_on_the_way(values: Any, location: tuple[int | str, ...]) -> list[str]:
    """The path of a wrong value in the keys; pydantic's location also has members of unions, which are not keys."""
    keys = []
    for index, part in enumerate(location):
        is_last = index == len(location) - 1
        if isinstance(values, dict) and part not in values and not is_last:
            continue
        keys.append(str(part))
        values = values.get(part) if isinstance(values, dict) else None
    return keys


def _known_keys(model: type[BaseModel]) -> set[str]:
    """Field names of a model and of every model nested in it."""
    keys: set[str] = set()
    pending: list[Any] = [model]
    seen: set[Any] = set()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            keys |= set(current.model_fields)
            pending += [field.annotation for field in current.model_fields.values()]
        else:
            pending += getattr(current, "__args__", ())
    return keys


class TransformerMapperConfig(Frozen):
    """The paper's mapping network (m1 and m2 of its equation 1).

    A linear layer expands a vector to ``tokens`` embeddings. These are concatenated with ``constants`` learned ones (as
    many as ``tokens`` if 0) and go through pre-norm transformer layers; the outputs at the constants are the prefix. A
    sequence enters unchanged, or through a linear layer for each token if its width differs. ``width`` is the width of
    the layers, the language model's if not given; ``positions`` adds position embeddings.
    """

    kind: Literal["transformer"]
    tokens: int = Field(40, ge=1)
    constants: int = Field(0, ge=0)
    layers: int = Field(4, ge=1)
    heads: int = Field(8, ge=1)
    width: int | None = Field(None, ge=1)
    positions: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)
    input: Literal["pooled", "sequence"] = "sequence"


class IdentityMapperConfig(Frozen):
    """Language-model embeddings are passed on unchanged, after learned ``constants``."""

    kind: Literal["identity"]
    constants: int = Field(0, ge=0)


MapperConfig = Annotated[TransformerMapperConfig | IdentityMapperConfig, Field(discriminator="kind")]


class ProjectionConfig(Frozen):
    """A trained layer between an encoder and its mapper: ``LN(W1 x + Dropout(W2 gelu(W1 x)))``, scaled to length one.

    The paper has one after each encoder. If the mapper takes one pooled vector, so does the projection. ``inner`` adds
    a linear layer with that many features in front (CLIP's own text projection, trained further).
    """

    width: int = Field(1024, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    inner: int | None = Field(None, ge=1)


class AudioBranchConfig(Frozen):
    """One audio encoder and its mapper. The paper has one branch; a second one may encode speech.

    Without a mapper the branch gives no prefix embeddings; the tagger reads its tokens.
    """

    encoder: str
    trained: bool = True
    frozen_layers: int = Field(0, ge=0, description="number of first layers of a trained encoder that stay frozen")
    pool: int = Field(
        1, ge=1, description="number of neighbouring encoder outputs that are averaged to one audio token"
    )
    window_s: float = Field(10.0, gt=0, description="longest audio one forward pass of the encoder sees, in seconds")
    max_tokens: int = Field(20, ge=1, description="longer token sequences are averaged in time to this many")
    projection: ProjectionConfig | None = None
    mapper: MapperConfig | None = None

    @model_validator(mode="after")
    def _trained_with_a_mapper(self) -> Self:
        if self.mapper is None and (self.trained or self.projection is not None):
            raise ValueError("without a mapper an audio branch needs trained: false and no projection")
        return self


class TextBranchConfig(Frozen):
    """How the prompt is passed to the language model.

    With an ``encoder`` the prompt becomes one sentence embedding (paper, figure 2). Without one its language-model
    token embeddings go through the mapper, the paper's "no text encoder" form. ``suffix`` is then appended to every
    prompt. With ``pad_token``, prompts are padded to ``max_tokens``; this padding is not masked.
    """

    encoder: str | None = None
    max_tokens: int = Field(40, ge=1)
    suffix: str = ""
    pad_token: int | None = Field(None, ge=0)
    projection: ProjectionConfig | None = None
    mapper: MapperConfig


class TaggerConfig(Frozen):
    """The tagger (pengi.conditioning.tagger): frame-level tag probabilities from frozen audio branches."""

    branches: tuple[str, ...] = Field(
        min_length=1, description="names of the audio branches it reads; the first one's encoder is yamnet"
    )


class EvidenceConfig(Frozen):
    """Which evidence about a recording is written for the language model (pengi.conditioning.evidence)."""

    max_tags: int = Field(8, ge=0)
    min_probability: float = Field(0.05, ge=0, le=1, description="tags below it are not written")
    transcript: bool = True
    descriptors: bool = True


class LoraConfig(Frozen):
    """Low-rank adapters (Hu et al. 2021) of the language model's linear layers, whose own weights stay frozen."""

    rank: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1, description="an adapter's output is scaled by alpha / rank")
    top_layers: int | None = Field(
        None, ge=1, description="number of last decoder layers with adapters; all if not given"
    )


class LanguageModelConfig(Frozen):
    """A frozen causal language model: a name known to ``pengi.weights`` or a folder in Hugging Face layout.

    The name of a folder inside the checkpoint itself begins with ``./``; the same holds for a text encoder.
    With ``chat``, prompts are put into the chat template of SmolLM2 (ChatML), and answers end with ``<|im_end|>``.
    """

    name: str
    chat: bool = False
    target_prefix: str = Field("", description="put before every target, e.g. a space if it continues the prompt")
    target_tokens: int = Field(77, ge=2, description="targets are cut to this many tokens, end token included")
    lora: LoraConfig | None = None


class ModelConfig(Frozen):
    """Everything that determines a Pengi's architecture; the audio branches have names of the user's choice."""

    name: str
    audio: dict[str, AudioBranchConfig] = Field(min_length=1)
    tagger: TaggerConfig | None = None
    evidence: EvidenceConfig | None = None
    text: TextBranchConfig
    language_model: LanguageModelConfig
    frozen_sha256: dict[str, str] = Field(
        default_factory=dict, description="name of each frozen part -> SHA-256 of the source file it was made from"
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        for name in self.tagger.branches if self.tagger else ():
            if name not in self.audio or self.audio[name].trained:
                raise ValueError(f"tagger.branches names '{name}', which is not a frozen audio branch")
        if self.language_model.chat and self.text.encoder is not None:
            raise ValueError("language_model.chat needs a prompt of token embeddings: text.encoder must be null")
        if self.evidence is not None and not self.language_model.chat:
            raise ValueError("evidence is written into a chat: it needs language_model.chat: true")
        if not self.language_model.chat and all(branch.mapper is None for branch in self.audio.values()):
            raise ValueError("without language_model.chat an audio branch needs a mapper")
        return self


T = TypeVar("T", bound=Frozen)


def read_json(model: type[T], path: Path) -> T:
    """Read one configuration from a JSON file.

    Raises:
        ConfigError: if the file is missing, is not JSON or does not fit the model.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no configuration at '{path}'") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is not valid JSON: {error}") from error
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {reason(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"'{path}' must hold one JSON object")
    return model.parse(values, str(path))
