"""Frozen sentence encoders: a prompt becomes one vector (the paper's text encoder g, figure 2).

The model is the one of ``all-MiniLM-L6-v2``: a BERT whose token outputs are averaged and scaled to length one, as that
model's ``1_Pooling`` and ``2_Normalize`` modules say.

Shape suffixes: N texts, L tokens of a text, D features of an embedding.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from pengi.errors import WeightsError

MAX_TOKENS = 256  # ``max_seq_length`` of all-MiniLM-L6-v2; longer texts are cut
BATCH = 64  # texts in one forward pass
REMEMBERED = 4096  # embeddings kept, 6 MB at 384 features
# In the published file but not in the sentence embedding: BERT's pooler, and a buffer that newer code computes.
_UNUSED_KEYS = ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids")


class SentenceEncoder(nn.Module):
    """A frozen BERT with mean pooling; it stays in evaluation mode whatever its parent does.

    Attributes:
        dim: features of an embedding.
    """

    def __init__(self, model: BertModel, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.dim: int = model.config.hidden_size
        self.model = model.requires_grad_(False)
        tokenizer.enable_truncation(min(MAX_TOKENS, model.config.max_position_embeddings))
        tokenizer.enable_padding(pad_id=model.config.pad_token_id)
        self._tokenizer = tokenizer
        self._remembered: OrderedDict[str, Tensor] = OrderedDict()
        self.eval()

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read ``config.json``, ``model.safetensors`` and ``tokenizer.json`` in the layout of a Hugging Face BERT.

        Raises:
            WeightsError: if a file is missing or the weights are not those of the configured model.
        """
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            if not (folder / name).is_file():
                raise WeightsError(f"'{folder}' is not a sentence encoder: it has no {name}.")
        model = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
        state = load_file(folder / "model.safetensors")
        for key in _UNUSED_KEYS:
            state.pop(key, None)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise WeightsError(f"the weights in '{folder}' do not fit its config.json.") from error
        return cls(model, Tokenizer.from_file(str(folder / "tokenizer.json")))

    @classmethod
    def tiny(cls, seed: int = 0) -> Self:
        """A random encoder that reads letter by letter and embeds in 32 features: for tests."""
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

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``float32[N, D]`` of length one, on the module's device.

        A text is computed once and then remembered, so prompts that come again cost nothing.
        """
        rows = {text: self._remembered[text] for text in dict.fromkeys(texts) if text in self._remembered}
        for batch in _batches([text for text in dict.fromkeys(texts) if text not in rows]):
            rows |= zip(batch, self._forward(batch).cpu(), strict=True)
        self._remember(rows)
        device = self.model.embeddings.word_embeddings.weight.device
        if not texts:
            return torch.zeros(0, self.dim, device=device)
        return torch.stack([rows[text] for text in texts]).to(device)

    @torch.no_grad()
    def _forward(self, texts: list[str]) -> Tensor:
        device = self.model.embeddings.word_embeddings.weight.device
        encodings = self._tokenizer.encode_batch(texts)
        ids_NL = torch.tensor([encoding.ids for encoding in encodings], device=device)
        mask_NL = torch.tensor([encoding.attention_mask for encoding in encodings], device=device)
        tokens_NLD = self.model(input_ids=ids_NL, attention_mask=mask_NL).last_hidden_state
        weights_NL1 = mask_NL[:, :, None].to(tokens_NLD.dtype)
        mean_ND = (tokens_NLD * weights_NL1).sum(1) / weights_NL1.sum(1)
        return functional.normalize(mean_ND, dim=-1)

    def _remember(self, rows: dict[str, Tensor]) -> None:
        for text, row in rows.items():
            self._remembered[text] = row
            self._remembered.move_to_end(text)
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)


def _batches(texts: list[str]) -> Iterator[list[str]]:
    """Texts of similar length together, so that little is spent on padding."""
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


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
