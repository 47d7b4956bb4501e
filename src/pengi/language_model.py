"""A frozen causal language model that reads embeddings. Gradients pass through it, and it decodes with a cache.

Hugging Face causal language models work unless they rescale their logits. Padding may be on either side of a row:
positions count real tokens only and padding is never attended to, so a row gives the same numbers alone and in a batch.

Shape suffixes: B rows, T tokens of one call, K tokens seen so far (the cache), N selected rows, D embedding width,
V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional

from pengi.config import LoraConfig
from pengi.errors import ConfigError, WeightsError, how_to_install

FOLDER_FILES = ("config.json", "model.safetensors", "tokenizer.json")
ADAPTER_MARK = ".lora_"  # in the name of every parameter of an adapter
TINY_END = "<|endoftext|>"
TINY_CHAT = ("<|im_start|>", "<|im_end|>")
TINY_VOCABULARY = 300
TINY_CORPUS = (
    "This is a sound of a dog barking.",
    "This is a sound of rain falling on the street.",
    "The sound events are thunder, wind and a church bell.",
    "A person is speaking while music plays in the background.",
)


@dataclass(frozen=True)
class DecoderState:
    """The language model's state after the tokens it has read; no call changes a state that it is given."""

    cache: Any
    """Keys and values per layer: a ``transformers`` cache."""
    mask_BK: Tensor
    """bool[B, K]: False at padding."""
    next_B: Tensor
    """int64[B]: the position of each row's next token."""


class LanguageModel(nn.Module):
    """A frozen causal language model and its tokenizer; always in evaluation mode.

    Only the parameters of adapters (:meth:`add_lora`) get gradients.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, end_id: int) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.end_id = end_id
        self.merged = False
        """Whether adapters were merged into the weights, so that they can no longer be stored separately."""

    @classmethod
    def from_folder(cls, path: Path, dtype: torch.dtype = torch.float32) -> Self:
        """Load a folder in Hugging Face layout, without access to the network.

        Raises:
            WeightsError: if a file is missing, no end token is named, or the logits are not a plain product of the last
                hidden state and the output embeddings (some families rescale them).
        """
        missing = [name for name in FOLDER_FILES if not (path / name).is_file()]
        if missing:
            raise WeightsError(f"the language model folder '{path}' lacks {', '.join(missing)}")
        model = _load_quietly(path, dtype)
        ends = model.config.eos_token_id
        end_id = ends[0] if isinstance(ends, list) else ends
        if end_id is None:
            raise WeightsError(f"'{path / 'config.json'}' names no end token (eos_token_id)")
        language_model = cls(model, Tokenizer.from_file(str(path / "tokenizer.json")), end_id)
        language_model._check_head(path)
        return language_model

    @classmethod
    def tiny(cls, seed: int = 0) -> Self:
        """A random Llama of two layers and 32 dimensions with a byte-level tokenizer, for tests."""
        from transformers import LlamaConfig, LlamaForCausalLM

        tokenizer = _tiny_tokenizer()
        end_id = tokenizer.token_to_id(TINY_END)
        assert end_id is not None
        config = LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            # Large enough that the most likely token leads clearly and rounding cannot change it.
            initializer_range=0.3,
            eos_token_id=end_id,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config)
        model.set_attn_implementation("sdpa")
        return cls(model, tokenizer, end_id)

    def add_lora(self, config: LoraConfig) -> None:
        """Add trainable low-rank adapters to linear layers; until they are trained they change nothing.

        Adapters are always float32, since bfloat16 loses small updates.

        Raises:
            ConfigError: if there are fewer decoder layers than ``top_layers``, or peft is not installed.
        """
        try:
            import peft
        except ImportError as error:
            raise ConfigError(f"LoRA needs the package 'peft'; {how_to_install('train')}") from error
        settings = peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=self._adapted(config),
            # GPT-2 stores its matrices transposed; peft warns if this is not set.
            fan_in_fan_out=self.model.config.model_type == "gpt2",
        )
        peft.inject_adapter_in_model(settings, self.model)
        for name, value in self.model.named_parameters():
            if ADAPTER_MARK in name:
                value.data = value.data.float()

    def _adapted(self, config: LoraConfig) -> list[str]:
        """Names of the linear layers that get adapters."""
        blocks = decoder_layers(self.model)
        count = config.top_layers or len(blocks)
        if count > len(blocks):
            raise ConfigError(f"lora.top_layers is {count}, and the language model has {len(blocks)} layers")
        top = {id(module) for block in blocks[-count:] for module in block.modules()}
        return [
            name
            for name, module in self.model.named_modules()
            if id(module) in top and type(module).__name__ in ("Linear", "Conv1D")
        ]

    def set_end(self, token: str) -> None:
        """Let answers end with another token.

        Raises:
            ConfigError: if the tokenizer has no such token.
        """
        end_id = self.tokenizer.token_to_id(token)
        if end_id is None:
            raise ConfigError(f"the language model has no token '{token}'; leave language_model.chat out")
        self.end_id = end_id

    @torch.no_grad()
    def merge_lora(self, config: LoraConfig, adapters: Mapping[str, Tensor]) -> None:
        """Merge trained adapters into the weights of their layers, for use without training and without peft.

        ``W + alpha / rank * B A`` (Hu et al. 2021, section 4.1: no latency is added).

        Args:
            config: of the adapters.
            adapters: tensors of :meth:`add_lora` by their names in this module's state.

        Raises:
            ConfigError: if there are none, or they do not fit the language model or are not finite.
        """
        weights = dict(self.named_parameters())
        for path, (down_RI, up_OR) in checked_adapters(config, adapters).items():
            weight = weights.get(f"{path}.weight")
            if weight is None:
                raise ConfigError(f"the language model has no layer '{path}'")
            change_OI = config.alpha / config.rank * (up_OR.float() @ down_RI.float())
            if self.model.config.model_type == "gpt2":
                change_OI = change_OI.T
            if change_OI.shape != weight.shape:
                raise ConfigError(f"the adapter of '{path}' does not fit a layer of shape {list(weight.shape)}")
            weight.copy_(weight.float() + change_OI)
        self.merged = True

    def attend_unfused(self) -> None:
        """Compute attention as plain products and a softmax: faster to train with on a CPU, slower on other devices.

        For SmolLM2-135M in bfloat16 on 2 cores torch's fused attention took a quarter of a training step, nearly all of
        it in the backward pass. The results differ by rounding.
        """
        self.model.set_attn_implementation("eager")

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight.device

    @property
    def dim(self) -> int:
        """Width of an input embedding."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def vocab_size(self) -> int:
        """Number of logits, which may exceed the tokenizer's number of tokens."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: dropout inside a frozen model would only be noise."""
        return super().train(False)

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``; no special tokens are added."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: list[int] | tuple[int, ...]) -> str:
        """The text of token ids; special tokens are skipped."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Input embeddings float[B, T, D] of int64[B, T]."""
        embeds_BTD: Tensor = self.model.get_input_embeddings()(ids_BT)
        return embeds_BTD

    def hidden(self, embeds_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Hidden states [B, T, D] after the final norm, differentiable with respect to the embeddings.

        Args:
            embeds_BTD: float[B, T, D]; cast to the model's dtype.
            mask_BT: [B, T], zero at padding; or ``bool[B, T, T]``, the tokens that each token attends to, at least one.
                With such a mask a token's position is the number of these tokens minus one. None means no padding.
        """
        if mask_BT is None:
            return self._decoder_output(embeds_BTD, use_cache=False)
        mask_BT = mask_BT.bool()
        if mask_BT.ndim == 3:
            positions_BT = mask_BT.sum(2) - 1
            zeros_BTT = torch.zeros(mask_BT.shape, dtype=self.model.dtype, device=mask_BT.device)
            attention_mask = zeros_BTT.masked_fill(~mask_BT, torch.finfo(zeros_BTT.dtype).min)[:, None]
        else:
            positions_BT, attention_mask = _positions(mask_BT), mask_BT
        return self._decoder_output(
            embeds_BTD, attention_mask=attention_mask, position_ids=positions_BT, use_cache=False
        )

    def logits(self, hidden_D: Tensor) -> Tensor:
        """Logits float32[..., V] of hidden states [..., D]."""
        # Flat and contiguous: on a sliced 3-D input torch may multiply row by row, each time with a copy of the head.
        flat_ND = hidden_D.reshape(-1, hidden_D.shape[-1])
        logits_NV: Tensor = self.model.get_output_embeddings()(flat_ND).float()
        return logits_NV.reshape(*hidden_D.shape[:-1], logits_NV.shape[-1])

    def prefill_hidden(self, embeds_BTD: Tensor, mask_BT: Tensor | None = None) -> tuple[Tensor, DecoderState]:
        """Read a prefix: hidden states [B, T, D] and the state after it, both differentiable.

        Args:
            embeds_BTD: float[B, T, D]; cast to the model's dtype.
            mask_BT: [B, T], zero at padding, at least one real token in each row; None means no padding.
        """
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config)
        mask_BT = embeds_BTD.new_ones(embeds_BTD.shape[:2], dtype=torch.bool) if mask_BT is None else mask_BT.bool()
        positions_BT = _positions(mask_BT)
        hidden_BTD = self._decoder_output(
            embeds_BTD, attention_mask=mask_BT, position_ids=positions_BT, past_key_values=cache, use_cache=True
        )
        return hidden_BTD, DecoderState(cache, mask_BT, mask_BT.sum(dim=1))

    def prefill(self, embeds_BTD: Tensor, mask_BT: Tensor | None = None) -> tuple[Tensor, DecoderState]:
        """Read a prefix: logits float32[B, V] after each row's last real token, and the state after it.

        Arguments as for :meth:`prefill_hidden`.
        """
        hidden_BTD, state = self.prefill_hidden(embeds_BTD, mask_BT)
        rows, tokens = embeds_BTD.shape[:2]
        index_T = torch.arange(tokens, device=embeds_BTD.device)
        last_B = index_T.expand(rows, -1) if mask_BT is None else torch.where(mask_BT.bool(), index_T, 0)
        return self.logits(hidden_BTD[torch.arange(rows, device=embeds_BTD.device), last_B.amax(1)]), state

    def extend(self, embeds_BTD: Tensor, mask_BT: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read further embeddings, differentiably: their hidden states [B, T, D], and the state that follows.

        Args:
            embeds_BTD: float[B, T, D].
            mask_BT: [B, T], zero at padding.
            state: of the same B rows.
        """
        mask_BT = mask_BT.bool()
        cache = _copy_cache(state.cache)
        mask_BK = torch.cat([state.mask_BK, mask_BT], dim=1)
        hidden_BTD = self._decoder_output(
            embeds_BTD,
            attention_mask=mask_BK,
            position_ids=state.next_B[:, None] + _positions(mask_BT),
            past_key_values=cache,
            use_cache=True,
        )
        return hidden_BTD, DecoderState(cache, mask_BK, state.next_B + mask_BT.sum(dim=1))

    def advance(self, ids_BT: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read further tokens int64[B, T]: their hidden states [B, T, D], and the state that follows."""
        return self.extend(self.embed(ids_BT), torch.ones_like(ids_BT, dtype=torch.bool), state)

    def step(self, ids_BT: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read further tokens int64[B, T]: logits float32[B, T, V] after each, and the state that follows."""
        hidden_BTD, state = self.advance(ids_BT, state)
        return self.logits(hidden_BTD), state

    def state_bytes(self, state: DecoderState) -> int:
        """Bytes of a state's keys and values."""
        return sum(tensor.nbytes for layer in state.cache.layers for tensor in (layer.keys, layer.values))

    def select(self, state: DecoderState, index_N: Tensor) -> DecoderState:
        """The state of the rows int64[N]; a row may be dropped, moved or repeated."""
        cache = _copy_cache(state.cache)
        cache.reorder_cache(index_N)
        return DecoderState(cache, state.mask_BK[index_N], state.next_B[index_N])

    def concat(self, states: Sequence[DecoderState]) -> DecoderState:
        """The state of the rows of several states, one state after the other, with as little padding as possible."""
        from transformers import DynamicCache

        # Drop columns that are padding in all rows; otherwise the rows of a long-lived batch would keep growing.
        masks = [state.mask_BK[:, int(state.mask_BK.any(0).int().argmax()) :] for state in states]
        width = max(mask_BK.shape[1] for mask_BK in masks)

        def joined(tensors: Sequence[Tensor]) -> Tensor:
            kept = [tensor[..., -mask_BK.shape[1] :, :] for tensor, mask_BK in zip(tensors, masks, strict=True)]
            return torch.cat([functional.pad(tensor, (0, 0, width - tensor.shape[-2], 0)) for tensor in kept])

        cache = DynamicCache(config=self.model.config)
        for index, layers in enumerate(zip(*(state.cache.layers for state in states), strict=True)):
            cache.update(joined([layer.keys for layer in layers]), joined([layer.values for layer in layers]), index)
        mask_BK = torch.cat([functional.pad(mask_BK, (width - mask_BK.shape[1], 0)) for mask_BK in masks])
        return DecoderState(cache, mask_BK, torch.cat([state.next_B for state in states]))

    def _decoder_output(self, embeds_BTD: Tensor, **options: Any) -> Tensor:
        embeds_BTD = embeds_BTD.to(self.model.dtype)
        hidden_BTD: Tensor = self.model.get_decoder()(inputs_embeds=embeds_BTD, **options).last_hidden_state
        return hidden_BTD

    @torch.inference_mode()
    def _check_head(self, path: Path) -> None:
        ids_BT = torch.arange(min(8, self.vocab_size))[None]
        expected_BTV = self.model(input_ids=ids_BT).logits.float()
        if not torch.allclose(self.logits(self.hidden(self.embed(ids_BT))), expected_BTV, rtol=1e-3, atol=1e-3):
            raise WeightsError(f"the language model in '{path}' rescales its logits, which is not supported")


def checked_adapters(config: LoraConfig, adapters: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The two matrices of each adapter, down [R, I] and up [O, R], by the path of the adapter's layer.

    Raises:
        ConfigError: if there are none, or they are not of the configured rank or not finite.
    """
    downs = {name: value for name, value in adapters.items() if f"{ADAPTER_MARK}A." in name}
    if not downs or len(adapters) != 2 * len(downs):
        raise ConfigError("adapters of the language model are missing")
    pairs = {}
    for name, down_RI in downs.items():
        path = name.partition(ADAPTER_MARK)[0]
        up_OR = adapters.get(name.replace(f"{ADAPTER_MARK}A.", f"{ADAPTER_MARK}B."))
        if up_OR is None or len(down_RI) != config.rank or up_OR.shape[1] != config.rank:
            raise ConfigError(f"the adapter of '{path}' is not of rank {config.rank}")
        if not bool(torch.isfinite(down_RI).all() and torch.isfinite(up_OR).all()):
            raise ConfigError(f"the adapter of '{path}' holds values that are not finite")
        pairs[path] = (down_RI, up_OR)
    return pairs


def decoder_layers(model: Any) -> Any:
    """The transformer layers of a causal language model of the transformers library, first to last."""
    count = model.config.num_hidden_layers
    stacks = [module for module in model.get_decoder().modules() if isinstance(module, nn.ModuleList)]
    return next(stack for stack in stacks if len(stack) == count)


def _load_quietly(path: Path, dtype: torch.dtype) -> Any:
    """Load without the library's own progress bar, which would mix with the program's."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, local_files_only=True, attn_implementation="sdpa"
        )
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _positions(mask_BT: Tensor) -> Tensor:
    """Each real token's index among the real tokens of its row; padding before the first gets 0."""
    return (mask_BT.long().cumsum(dim=1) - 1).clamp(min=0)


def _copy_cache(cache: Any) -> Any:
    """A copy of a cache whose growth or reordering does not change the original; tensors are shared until replaced."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    return copied


def _tiny_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TINY_VOCABULARY,
        special_tokens=[TINY_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TINY_CORPUS, trainer)
    tokenizer.add_special_tokens(list(TINY_CHAT))
    return tokenizer
