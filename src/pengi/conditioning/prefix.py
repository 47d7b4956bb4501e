"""The prefix: what the language model reads before it answers. Inference, training and validation build it here.

Without a chat template it is the paper's prefix: m1 of the audio, then m2 of the prompt. With one it is

    [m1 | <|im_start|>user\\n{evidence}\\n]  +  [{queried}{prompt}<|im_end|>\\n<|im_start|>assistant\\n]
      shared by all questions about a clip       of one question

The shared part is computed once for all questions about a clip.

Shape suffixes: A clips, E examples, B rows, P shared tokens, X tokens of one example, T tokens of a row,
D language-model embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pengi.encoders.base import Masked
from pengi.language_model import LanguageModel

CHAT_START = "<|im_start|>user\n"
CHAT_ANSWER = "<|im_end|>\n<|im_start|>assistant\n"
CHAT_END = "<|im_end|>"


def shared_text(evidence: str) -> str:
    """Start of a chat about a recording, with the evidence if there is any."""
    return f"{CHAT_START}{_plain(evidence)}\n" if evidence else CHAT_START


def own_text(prompt: str) -> str:
    """The rest of a chat, up to the answer; ``prompt`` starts with the line about the tags that it names, if any."""
    return f"{_plain(prompt)}{CHAT_ANSWER}"


def _plain(text: str) -> str:
    """Text without special tokens of a chat, so that neither a user nor a transcript can end the turn."""
    return text.replace("<|", "< |")


def embed_texts(language_model: LanguageModel, texts: Sequence[str]) -> Masked:
    """Language-model embeddings ``[B, T, D]`` of texts, padded on the right."""
    return embed_rows(language_model, [language_model.encode(text) for text in texts])


def embed_rows(language_model: LanguageModel, rows: Sequence[Sequence[int]]) -> Masked:
    """Language-model embeddings ``[B, T, D]`` of rows of token ids, padded on the right."""
    device = language_model.device
    lengths_B = torch.tensor([len(row) for row in rows], device=device)
    width = max(1, int(lengths_B.max()))
    padded = [[*row, *[language_model.end_id] * (width - len(row))] for row in rows]
    mask_BT = torch.arange(width, device=device) < lengths_B[:, None]
    return language_model.embed(torch.tensor(padded, device=device)), mask_BT


def join(parts: Sequence[Masked], *, padding: str) -> Masked:
    """Concatenate sequences, and move all padding of a row to one side.

    Args:
        parts: ``[B, T_i, D]`` with masks.
        padding: "left" or "right". ``a a . | b .`` becomes ``. . a a b`` or ``a a b . .``, cut to the longest row.
    """
    values_BTD = torch.cat([values for values, _ in parts], 1)
    mask_BT = torch.cat([mask for _, mask in parts], 1)
    width = int(mask_BT.sum(1).max())
    order_BT = mask_BT.int().argsort(dim=1, descending=padding == "right", stable=True)
    order_BT = order_BT[:, :width] if padding == "right" else order_BT[:, mask_BT.shape[1] - width :]
    joined_BTD = values_BTD.gather(1, order_BT[..., None].expand(-1, -1, values_BTD.shape[-1]))
    return joined_BTD, mask_BT.gather(1, order_BT)


@dataclass(frozen=True)
class Packed:
    """Examples after the prefix that they share; one row holds a clip's prefix and all examples about it.

    Attributes:
        values_ATD: embeddings; padding is on the right.
        attention_mask_ATT: ``bool``: each token attends to the earlier tokens of the shared prefix and its example.
        start_E: ``int64``: position in its row of each example's first embedding.
    """

    values_ATD: Tensor
    attention_mask_ATT: Tensor
    start_E: Tensor


def pack(shared: Masked, own: Masked, clip_E: Tensor) -> Packed:
    """Append the tokens of each example to the shared prefix of its clip.

    Args:
        shared: prefixes ``[A, P, D]`` with a mask, at least one real token in each row.
        own: tokens of the examples ``[E, X, D]`` with a mask.
        clip_E: index of each example's clip.
    """
    rows = [[values_PD[mask_P]] for values_PD, mask_P in zip(*shared, strict=True)]
    parts = [[torch.zeros_like(mask_P[mask_P], dtype=torch.int64)] for mask_P in shared[1]]
    length_A = shared[1].sum(1).tolist()
    starts = []
    for clip, values_XD, mask_X in zip(clip_E.tolist(), *own, strict=True):
        starts.append(length_A[clip])
        rows[clip].append(values_XD[mask_X])
        parts[clip].append(torch.full_like(parts[clip][0][:1], len(parts[clip])).expand(len(rows[clip][-1])))
        length_A[clip] += len(rows[clip][-1])
    part_AT = pad_sequence([torch.cat(row) for row in parts], batch_first=True, padding_value=-1)
    is_visible_ATT = (part_AT[:, None] == 0) | (part_AT[:, :, None] == part_AT[:, None])
    return Packed(
        pad_sequence([torch.cat(row) for row in rows], batch_first=True),
        is_visible_ATT.tril(),
        torch.tensor(starts, device=clip_E.device),
    )
