"""Finds the tokenizers of GPT-2 and CLIP in a local folder or on the Hugging Face hub, and checks them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pengi.errors import WeightsError
from pengi.official.architectures import (
    END_OF_TEXT,
    LANGUAGE_MODEL_FOLDER,
    START_OF_TEXT,
    TEXT_ENCODER_FOLDER,
    Architecture,
)

TOKENIZER_FILE = "tokenizer.json"
HUB_NAMES = {LANGUAGE_MODEL_FOLDER: "openai-community/gpt2", TEXT_ENCODER_FOLDER: "openai/clip-vit-base-patch16"}


def find_tokenizers(chosen: Architecture, folder: Path | None) -> dict[str, Tokenizer]:
    """The tokenizer of each frozen part, by the name of the part's folder.

    Args:
        chosen: the architecture that they have to match.
        folder: holds ``gpt2/tokenizer.json`` and ``clip-vit-base-patch16/tokenizer.json``; None asks the hub.

    Raises:
        WeightsError: if one cannot be found or read, or its tokens differ from those of its model.
    """
    wanted: dict[str, tuple[int, dict[str, Any]]] = {
        LANGUAGE_MODEL_FOLDER: (
            chosen.language_model.vocab_size,
            {END_OF_TEXT: chosen.language_model.eos_token_id},
        )
    }
    if chosen.text_encoder is not None:
        ends: dict[str, Any] = {
            START_OF_TEXT: chosen.text_encoder.bos_token_id,
            END_OF_TEXT: chosen.text_encoder.eos_token_id,
        }
        wanted[TEXT_ENCODER_FOLDER] = (chosen.text_encoder.vocab_size, ends)
    found = {}
    for part, (size, special) in wanted.items():
        path = _from_folder(part, folder) if folder is not None else _from_hub(part)
        tokenizer = _read(path)
        named = {token: tokenizer.token_to_id(token) for token in special}
        if tokenizer.get_vocab_size() != size or named != special:
            raise WeightsError(
                f"'{path}' is not the tokenizer of {HUB_NAMES[part]}: it has {tokenizer.get_vocab_size()} tokens and "
                f"{named} where the model has {size} and {special}"
            )
        found[part] = tokenizer
    return found


def _short_name(part: str) -> str:
    return HUB_NAMES[part].rsplit("/", 1)[-1]


def _from_folder(part: str, folder: Path) -> Path:
    path = folder / _short_name(part) / TOKENIZER_FILE
    if not path.is_file():
        raise WeightsError(f"there is no '{path}'; it is the {TOKENIZER_FILE} of {HUB_NAMES[part]}")
    return path


def _from_hub(part: str) -> Path:
    from huggingface_hub import hf_hub_download

    name = HUB_NAMES[part]
    try:
        return Path(hf_hub_download(name, TOKENIZER_FILE))
    except OSError as error:  # every failure of the hub's client, from no network to no such file, is an OSError
        raise WeightsError(
            f"the {TOKENIZER_FILE} of {name} cannot be fetched from the Hugging Face hub; put it into "
            f"FOLDER/{_short_name(part)}/ and pass --tokenizers FOLDER"
        ) from error


def _read(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for a file it does not understand
        raise WeightsError(f"'{path}' is not a readable {TOKENIZER_FILE}") from error
