"""Pooling of token sequences over time.

Shape suffixes: B rows, T tokens, D features, K scores of a token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def masked_mean(tokens_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean of each row's real tokens, ``float[B, D]``; zeros for a row without any."""
    weights_BT1 = mask_BT[..., None].to(tokens_BTD.dtype)
    mean_BD: Tensor = (tokens_BTD * weights_BT1).sum(1) / weights_BT1.sum(1).clamp(min=1.0)
    return mean_BD


def log_mean_exp(logits_BTK: Tensor, mask_BT: Tensor) -> Tensor:
    """Pool logits over time to ``float32[B, K]``: the logarithm of the mean of e to the logit over real tokens.

    The result is near the maximum, but does not depend on the length. A mean of the logits would hide a sound that
    fills one second of five in the silence around it. A row without tokens gives zeros.
    """
    counts_B1 = mask_BT.sum(1, keepdim=True)
    # A row without tokens is not masked: a row of minus infinity alone has no gradient.
    padding_BT = ~mask_BT & (counts_B1 > 0)
    pooled_BK = logits_BTK.float().masked_fill(padding_BT[..., None], -math.inf).logsumexp(1)
    return torch.where(counts_B1 > 0, pooled_BK - counts_B1.clamp(min=1).log(), 0.0)
