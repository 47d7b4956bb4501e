"""A Llama or a GPT-2 that decodes in onnxruntime, for inference on a CPU, with the interface of :class:`LanguageModel`.

The cache of keys and values is compact: a row's real tokens are at its beginning, without padding, so that a row is
computed in the same way alone and in a batch. The cache has room for more tokens, and its newest state is extended in
place. Earlier states stay valid; continuing from one of them copies the cache first.

Shape suffixes as in :mod:`pengi.language_model`; L layers, C capacity of the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from pengi.config import LoraConfig
from pengi.errors import ConfigError
from pengi.language_model import DecoderState, LanguageModel, checked_adapters
from pengi.runtime.architecture import (
    EXTEND_FILE,
    HEAD_FILE,
    PREFILL_FILE,
    STEP_FILE,
    Adapter,
    Shape,
    linear_layers,
    stored_name,
    unsupported,
)
from pengi.runtime.sessions import opened
from pengi.runtime.store import built

if TYPE_CHECKING:
    import onnxruntime

CAPACITY_STEP = 32
"""The capacity of a cache is a multiple of this number of tokens."""
_SPARE_TOKENS = 24
_MASKED = -1e9


@dataclass
class _Cache:
    """Keys and values of all layers, with room after each row's tokens. A single row is stored twice."""

    values_LBHCS: Tensor
    """float32[2 L, B, H, C, S]: keys and values of each layer alternate."""
    newest: int = 0
    """Number of the state that was made last; only it may be extended in place."""

    @property
    def capacity(self) -> int:
        return self.values_LBHCS.shape[3]


@dataclass(frozen=True)
class _Version:
    """One state of a cache."""

    buffer: _Cache
    number: int


def _session(file: str) -> cached_property[onnxruntime.InferenceSession]:
    """A property of a language model: the session of one of its graphs, opened when it is first used."""
    return cached_property(lambda model: opened(model._graphs / file, torch.get_num_threads()))


class OnnxLanguageModel(LanguageModel):
    """A frozen Llama or GPT-2 in onnxruntime, with its adapters. It has neither gradients nor parameters."""

    _prefill, _step = _session(PREFILL_FILE), _session(STEP_FILE)
    _extend, _head = _session(EXTEND_FILE), _session(HEAD_FILE)

    def __init__(
        self, graphs: Path, shape: Shape, embeddings_VD: Tensor, positions_PD: Tensor | None, tokenizer: Tokenizer
    ) -> None:
        nn.Module.__init__(self)
        assert shape.end_id is not None
        self.tokenizer = tokenizer
        self.end_id = shape.end_id[0] if isinstance(shape.end_id, list) else shape.end_id
        self.merged = False
        self._shape = shape
        self._graphs = graphs
        # Views of the file. They are no buffers, so that no checkpoint stores them and moving the model does not copy
        # them.
        self._embeddings_VD, self._positions_PD = embeddings_VD, positions_PD

    @classmethod
    def from_folder(
        cls,
        path: Path,
        dtype: torch.dtype = torch.float32,
        lora: LoraConfig | None = None,
        adapters: Mapping[str, Tensor] | None = None,
    ) -> Self:
        """Load a folder in Hugging Face layout; its graphs are built first if they are not in the cache.

        Args:
            path: of the folder.
            dtype: must be float32, the only one that onnxruntime computes in.
            lora: configuration of the adapters, if there are any.
            adapters: tensors by their names in a torch language model's state.

        Raises:
            ConfigError: if the model is of another family, or the adapters do not fit.
            WeightsError: if the graphs cannot be stored.
        """
        reason = unsupported(path) if dtype == torch.float32 else f"onnxruntime does not compute in {dtype}"
        if reason is not None:
            raise ConfigError(f"onnxruntime cannot run the language model in '{path}': {reason}")
        shape = Shape.read(path)
        products = {} if lora is None else _products(lora, adapters or {}, shape)
        names = shape.architecture
        model = cls(
            built(path, products),
            shape,
            _table(path, names.embeddings),
            None if names.positions is None else _table(path, names.positions),
            Tokenizer.from_file(str(path / "tokenizer.json")),
        )
        model.merged = lora is not None
        return model

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def dim(self) -> int:
        """Width of an input embedding."""
        return self._shape.width

    @property
    def vocab_size(self) -> int:
        """Number of logits, which may exceed the tokenizer's number of tokens."""
        return self._shape.vocabulary

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Input embeddings float[B, T, D] of int64[B, T]."""
        return self._embeddings_VD[ids_BT]

    def hidden(self, embeds_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Hidden states [B, T, D] after the final norm; zero at padding."""
        return self.prefill_hidden(embeds_BTD, mask_BT)[0]

    @torch.inference_mode()
    def logits(self, hidden_D: Tensor) -> Tensor:
        """Logits float32[..., V] of hidden states [..., D]."""
        flat_ND = hidden_D.reshape(-1, self.dim).contiguous()
        logits_NV = torch.empty(len(flat_ND), self.vocab_size)
        if len(flat_ND):
            _run(self._head, {"hidden": flat_ND}, {"logits": logits_NV})
        return logits_NV.reshape(*hidden_D.shape[:-1], self.vocab_size)

    @torch.inference_mode()
    def prefill_hidden(self, embeds_BTD: Tensor, mask_BT: Tensor | None = None) -> tuple[Tensor, DecoderState]:
        """Read a prefix: hidden states [B, T, D], zero at padding, and the state after it.

        Arguments as for :meth:`LanguageModel.prefill_hidden`.
        """
        rows, tokens = embeds_BTD.shape[:2]
        mask_BT = torch.ones(rows, tokens, dtype=torch.bool) if mask_BT is None else mask_BT.bool()
        lengths_B = mask_BT.sum(dim=1)
        # Real tokens first, in their order.
        order_BT = mask_BT.int().argsort(dim=1, descending=True, stable=True)
        longest = int(lengths_B.max())
        index_BT1 = order_BT[:, :longest, None]
        compact_BTD = embeds_BTD.gather(1, index_BT1.expand(-1, -1, embeds_BTD.shape[-1]))
        compact_BTD = self._positioned(compact_BTD, torch.arange(longest))
        cache = self._cache(rows, longest + _SPARE_TOKENS)
        # Row by row, so that padding costs nothing and the results of a row do not depend on the others.
        for row, length in enumerate(lengths_B.tolist()):
            one = slice(row, row + 1)
            compact_BTD[one, :length] = self._read(
                self._prefill, compact_BTD[one, :length], lengths_B[one], cache.values_LBHCS[:, one]
            )
        if rows == 1:
            cache.values_LBHCS[:, 1] = cache.values_LBHCS[:, 0]
        hidden_BTD = compact_BTD.new_zeros(rows, tokens, self.dim)
        hidden_BTD.scatter_(1, index_BT1.expand(-1, -1, self.dim), compact_BTD)
        hidden_BTD[~mask_BT] = 0
        return hidden_BTD, _state(cache, lengths_B)

    @torch.inference_mode()
    def extend(self, embeds_BTD: Tensor, mask_BT: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read further embeddings: their hidden states [B, T, D], zero at padding, and the state that follows.

        Arguments as for :meth:`LanguageModel.extend`.
        """
        mask_BT = mask_BT.bool()
        cache = self._extensible(state, int(state.next_B.max()) + embeds_BTD.shape[1])
        at_BT = state.next_B[:, None] + (mask_BT.long().cumsum(dim=1) - 1).clamp(min=0)
        inputs = {
            "embeds": self._positioned(embeds_BTD, at_BT),
            "positions": at_BT,
            "bias": _bias(mask_BT, state.next_B, cache.capacity),
        }
        hidden_BTD = torch.empty_like(inputs["embeds"])
        rows, tokens = at_BT.shape
        new_LBHTS = cache.values_LBHCS.new_empty(
            len(cache.values_LBHCS), rows, self._shape.key_heads, tokens, self._shape.head_size
        )
        _run(
            self._extend,
            inputs | self._by_layer("{}_{}", cache.values_LBHCS[:, :rows]),
            {"hidden": hidden_BTD} | self._by_layer("new_{}_{}", new_LBHTS),
        )
        row_N, token_N = mask_BT.nonzero(as_tuple=True)
        cache.values_LBHCS[:, row_N, :, at_BT[mask_BT]] = new_LBHTS[:, row_N, :, token_N]
        if rows == 1:
            cache.values_LBHCS[:, 1] = cache.values_LBHCS[:, 0]
        hidden_BTD[~mask_BT] = 0
        return hidden_BTD, _state(cache, state.next_B + mask_BT.sum(dim=1))

    @torch.inference_mode()
    def step(self, ids_BT: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read further tokens int64[B, T]: logits float32[B, T, V] after each, and the state that follows.

        A search reads one token for each row. That takes the fast graph, which rounds the inputs of products to 8 bits.
        """
        rows, tokens = ids_BT.shape
        if tokens > 1:
            return super().step(ids_BT, state)
        cache = self._extensible(state, int(state.next_B.max()) + 1)
        embeds_B1D, total_B = self._positioned(self.embed(ids_BT), state.next_B[:, None]), state.next_B + 1
        if rows == 1:
            # onnxruntime has other kernels for a single row, with other rounding, so it is computed as two equal rows.
            embeds_B1D, total_B = embeds_B1D.repeat(2, 1, 1), total_B.repeat(2)
        hidden_B1D = self._read(self._step, embeds_B1D, total_B, cache.values_LBHCS[:, : len(embeds_B1D)])[:rows]
        return self.logits(hidden_B1D), _state(cache, total_B[:rows])

    def state_bytes(self, state: DecoderState) -> int:
        """Bytes of a state's keys and values."""
        return int(state.cache.buffer.values_LBHCS.nbytes)

    @torch.inference_mode()
    def select(self, state: DecoderState, index_N: Tensor) -> DecoderState:
        """The state of the rows int64[N]; a row may be dropped, moved or repeated."""
        rows_N = index_N if len(index_N) > 1 else index_N.repeat(2)
        return _state(_Cache(state.cache.buffer.values_LBHCS.index_select(1, rows_N)), state.next_B[index_N])

    @torch.inference_mode()
    def concat(self, states: Sequence[DecoderState]) -> DecoderState:
        """The state of the rows of several states, one state after the other."""
        lengths_B = torch.cat([state.next_B for state in states])
        cache = self._cache(len(lengths_B), int(lengths_B.max()) + _SPARE_TOKENS)
        first = 0
        for state in states:
            rows, used = len(state.next_B), int(state.next_B.max())
            cache.values_LBHCS[:, first : first + rows, :, :used] = state.cache.buffer.values_LBHCS[:, :rows, :, :used]
            first += rows
        return _state(cache, lengths_B)

    def add_lora(self, config: LoraConfig) -> None:
        """Not supported: onnxruntime cannot train.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a language model in onnxruntime cannot be trained; load it with to_train=True")

    def _positioned(self, embeds_BTD: Tensor, at_BT: Tensor) -> Tensor:
        """What the graphs read, float32[B, T, D]: embeddings, with learned positions added if the model has them."""
        embeds_BTD = embeds_BTD.float()
        if self._positions_PD is not None:
            embeds_BTD = embeds_BTD + self._positions_PD[at_BT]
        return embeds_BTD.contiguous()

    def _cache(self, rows: int, tokens: int) -> _Cache:
        capacity = -(-tokens // CAPACITY_STEP) * CAPACITY_STEP
        shape = self._shape
        # Zeros, because masked values are multiplied by zero, and uninitialised memory may hold NaN.
        return _Cache(torch.zeros(2 * shape.layers, max(rows, 2), shape.key_heads, capacity, shape.head_size))

    def _extensible(self, state: DecoderState, tokens: int) -> _Cache:
        """A cache with the state's keys and values and room for ``tokens`` tokens in each row."""
        cache: _Cache = state.cache.buffer
        if state.cache.number == cache.newest and tokens <= cache.capacity:
            return cache
        grown = self._cache(len(state.next_B), tokens)
        used = min(cache.capacity, int(state.next_B.max()))
        grown.values_LBHCS[..., :used, :] = cache.values_LBHCS[..., :used, :]
        return grown

    def _read(
        self, session: onnxruntime.InferenceSession, embeds_BTD: Tensor, total_B: Tensor, values_LBHCS: Tensor
    ) -> Tensor:
        """Hidden states [B, T, D] of embeddings after which the rows have ``total_B`` tokens. Their keys and values are
        written into the rows' part of a cache."""
        inputs = {"embeds": embeds_BTD.contiguous(), "lengths": (total_B - 1).int(), "total": total_B.max().int()}
        hidden_BTD = torch.empty_like(inputs["embeds"])
        _run(
            session,
            inputs | self._by_layer("{}_{}", values_LBHCS),
            {"hidden": hidden_BTD} | self._by_layer("new_{}_{}", values_LBHCS),
        )
        return hidden_BTD

    def _by_layer(self, pattern: str, values_LBHCS: Tensor) -> dict[str, Tensor]:
        """Keys and values of the layers by their names in the graphs."""
        names = [pattern.format(kind, layer) for layer in range(self._shape.layers) for kind in ("key", "value")]
        return dict(zip(names, values_LBHCS, strict=True))


def _products(lora: LoraConfig, adapters: Mapping[str, Tensor], shape: Shape) -> dict[str, Adapter]:
    """Adapters by the names of their layers in the model's folder."""
    products = {}
    sizes = linear_layers(shape)
    for path, (down_RK, up_NR) in checked_adapters(lora, adapters).items():
        name = path.removeprefix("model.")
        if name not in sizes:
            raise ConfigError(f"the language model has no layer '{path}'")
        if (up_NR.shape[0], down_RK.shape[1]) != sizes[name]:
            raise ConfigError(f"the adapter of '{path}' does not fit a layer of shape {list(sizes[name])}")
        scaled_NR = lora.alpha / lora.rank * up_NR.float()
        products[name] = (down_RK.float().numpy(), scaled_NR.numpy())
    return products


def _table(path: Path, name: str) -> Tensor:
    """A table of embeddings, float32[V, D]; only rows that are used are read from the file."""
    from safetensors import safe_open

    with safe_open(path / "model.safetensors", "pt") as tensors:
        table_VD: Tensor = tensors.get_tensor(stored_name(f"{name}.weight", tensors.keys())).float()
    return table_VD


def _state(cache: _Cache, lengths_B: Tensor) -> DecoderState:
    """The newest state of a cache."""
    cache.newest += 1
    mask_BK = torch.arange(int(lengths_B.max()))[None] < lengths_B[:, None]
    return DecoderState(_Version(cache, cache.newest), mask_BK, lengths_B)


def _bias(mask_BT: Tensor, used_B: Tensor, capacity: int) -> Tensor:
    """The bias of attention scores, float32[B, 1, T, C + T]: zero for tokens that a token may attend to."""
    rows, tokens = mask_BT.shape
    past_BTC = (torch.arange(capacity) < used_B[:, None])[:, None].expand(-1, tokens, -1)
    new_BTT = mask_BT[:, None] & torch.ones(tokens, tokens, dtype=torch.bool).tril()
    attention_mask_BTK = torch.cat([past_BTC, new_BTT], dim=2)
    return torch.zeros(rows, 1, tokens, capacity + tokens).masked_fill_(~attention_mask_BTK[:, None], _MASKED)


_TYPES = {torch.float32: np.float32, torch.int32: np.int32, torch.int64: np.int64}


def _run(session: onnxruntime.InferenceSession, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
    """Run a session on the memory of tensors, without copies."""
    binding: Any = session.io_binding()
    for bind, tensors in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
        for name, tensor in tensors.items():
            assert tensor.is_contiguous()
            bind(name, "cpu", 0, _TYPES[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
    session.run_with_iobinding(binding)
