"""Frozen text encoders: a prompt becomes one vector (the paper's text encoder g, figure 2).

:class:`SentenceEncoder` is the model of ``all-MiniLM-L6-v2``: a BERT whose token outputs are averaged and scaled to
length one, as that model's ``1_Pooling`` and ``2_Normalize`` modules say. :class:`ClipTextEncoder` is the text tower of
CLIP (Radford et al. 2021), the paper's choice: its output at the end token.

Shape suffixes: N texts, L tokens of a text, D features of an embedding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional

from pengi.batching import batched
from pengi.caching import RecentCache
from pengi.errors import WeightsError

# Imported only when a text encoder is built: most models have none, and the import takes time.
if TYPE_CHECKING:
    from transformers import BertModel, CLIPTextModel, PreTrainedModel

MAX_TOKENS = 256  # ``max_seq_length`` of all-MiniLM-L6-v2; longer texts are cut
BATCH = 64  # texts in one forward pass
SHARPNESS = 20.0  # cosine similarities become weights: exp(20 * cosine)
CLIP_MODEL_TYPE = "clip_text_model"  # in the config.json of a CLIP text tower
MAX_CACHED_BYTES = 6 * 2**20  # 4096 embeddings of 384 features
# In the published file but not in the sentence embedding: BERT's pooler, and a buffer that newer code computes.
_UNUSED_KEYS = ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids")


FOLDER_FILES = ("config.json", "model.safetensors", "tokenizer.json")


class TextEncoder(nn.Module):
    """Base of the frozen text encoders; it stays in evaluation mode, even if its parent is set to training.

    Attributes:
        dim: features of an embedding.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, max_tokens: int, pad_id: int) -> None:
        super().__init__()
        self.dim: int = model.config.hidden_size
        self.model = model.requires_grad_(False)
        tokenizer.enable_truncation(min(max_tokens, model.config.max_position_embeddings))
        tokenizer.enable_padding(pad_id=pad_id)
        self._tokenizer = tokenizer
        self._recent: RecentCache[Tensor] = RecentCache(MAX_CACHED_BYTES)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``float32[N, D]`` on the module's device; recent ones are cached."""
        rows = {text: row for text in dict.fromkeys(texts) if (row := self._recent.get(text)) is not None}
        # Texts of similar length together, so that little is spent on padding.
        for batch in batched(sorted((text for text in dict.fromkeys(texts) if text not in rows), key=len), BATCH):
            for text, row in zip(batch, self._forward(batch).cpu(), strict=True):
                rows[text] = row
                self._recent.put(text, row, row.nbytes)
        if not texts:
            return torch.zeros(0, self.dim, device=self.model.device)
        return torch.stack([rows[text] for text in texts]).to(self.model.device)

    @torch.no_grad()
    def _forward(self, texts: list[str]) -> Tensor:
        encodings = self._tokenizer.encode_batch(texts)
        ids_NL = torch.tensor([encoding.ids for encoding in encodings], device=self.model.device)
        mask_NL = torch.tensor([encoding.attention_mask for encoding in encodings], device=self.model.device)
        return self._pooled(ids_NL, mask_NL)

    def _pooled(self, ids_NL: Tensor, mask_NL: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not implement _pooled")


class SentenceEncoder(TextEncoder):
    """A BERT with mean pooling; its embeddings have length one, so that their dot products are cosines."""

    def __init__(self, model: BertModel, tokenizer: Tokenizer) -> None:
        super().__init__(model, tokenizer, MAX_TOKENS, model.config.pad_token_id or 0)

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read ``config.json``, ``model.safetensors`` and ``tokenizer.json`` in the layout of a Hugging Face BERT.

        Raises:
            WeightsError: if a file is missing or the weights are not those of the configured model.
        """
        from transformers import BertConfig, BertModel

        _check_files(folder, "sentence encoder")
        model = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
        state = load_file(folder / "model.safetensors")
        for key in _UNUSED_KEYS:
            state.pop(key, None)
        _fill(model, state, folder)
        return cls(model, Tokenizer.from_file(str(folder / "tokenizer.json")))

    @classmethod
    def tiny(cls, seed: int = 0) -> Self:
        """A random encoder that reads letter by letter and embeds in 32 features: for tests."""
        from transformers import BertConfig, BertModel

        tokenizer = _letters_tokenizer()
        config = BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=MAX_TOKENS,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = BertModel(config, add_pooling_layer=False)
        return cls(model, tokenizer)

    def _pooled(self, ids_NL: Tensor, mask_NL: Tensor) -> Tensor:
        tokens_NLD = self.model(input_ids=ids_NL, attention_mask=mask_NL).last_hidden_state
        weights_NL1 = mask_NL[:, :, None].to(tokens_NLD.dtype)
        mean_ND = (tokens_NLD * weights_NL1).sum(1) / weights_NL1.sum(1)
        return functional.normalize(mean_ND, dim=-1)


class ClipTextEncoder(TextEncoder):
    """The text tower of CLIP without its projection: the output at the end token, of any length.

    Attention is causal, so the padding after the end token does not change the output.
    """

    def __init__(self, model: CLIPTextModel, tokenizer: Tokenizer, max_tokens: int) -> None:
        end_id = model.config.eos_token_id
        assert isinstance(end_id, int)
        super().__init__(model, tokenizer, max_tokens, end_id)

    @classmethod
    def from_folder(cls, folder: Path, max_tokens: int) -> Self:
        """Read a ``CLIPTextModel`` in Hugging Face layout with its ``tokenizer.json``; longer texts are cut.

        Raises:
            WeightsError: if a file is missing or the weights are not those of the configured model.
        """
        from transformers import CLIPTextConfig, CLIPTextModel

        _check_files(folder, "CLIP text tower")
        model = CLIPTextModel(CLIPTextConfig.from_pretrained(folder))
        state = load_file(folder / "model.safetensors")
        # Files of the hub have names with a prefix.
        _fill(model, {name.removeprefix("text_model."): tensor for name, tensor in state.items()}, folder)
        return cls(model, Tokenizer.from_file(str(folder / "tokenizer.json")), max_tokens)

    def _pooled(self, ids_NL: Tensor, mask_NL: Tensor) -> Tensor:
        pooled_ND: Tensor = self.model(input_ids=ids_NL, attention_mask=mask_NL).pooler_output
        return pooled_ND


def sentence_vectors(encoder: TextEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Embeddings of length one on the CPU, ``float32[N, D]``."""
    vectors_ND: NDArray[np.float32] = functional.normalize(encoder.embed(texts), dim=-1).cpu().numpy()
    return vectors_ND


def text_encoder_from_folder(folder: Path, max_tokens: int) -> TextEncoder:
    """The kind of text encoder that the folder's ``config.json`` names: a CLIP text tower, else a BERT.

    Raises:
        WeightsError: if a file is missing or the weights are not those of the configured model.
    """
    config = folder / "config.json"
    if config.is_file() and json.loads(config.read_text(encoding="utf-8")).get("model_type") == CLIP_MODEL_TYPE:
        return ClipTextEncoder.from_folder(folder, max_tokens)
    return SentenceEncoder.from_folder(folder)


def _check_files(folder: Path, what: str) -> None:
    for name in FOLDER_FILES:
        if not (folder / name).is_file():
            raise WeightsError(f"'{folder}' is not a {what}: it has no {name}.")


def _fill(model: PreTrainedModel, state: dict[str, Tensor], folder: Path) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"the weights in '{folder}' do not fit its config.json.") from error


def _letters_tokenizer() -> Tokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,;:?!'-"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(piece, vocabulary[piece]) for piece in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer
