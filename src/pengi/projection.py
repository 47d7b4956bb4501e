"""The paper's projection of a pooled audio or text embedding into the space that the mappers read.

Shape suffixes: I input width, N inner width, W output width; any dimensions may stand in front.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from pengi.config import ProjectionConfig


class Projection(nn.Module):
    """``LN(W1 x + Dropout(W2 gelu(W1 x)))`` without biases, then scaled to length one (PAPER, section 2)."""

    def __init__(self, config: ProjectionConfig, input_dim: int) -> None:
        super().__init__()
        self.inner: nn.Module = nn.Linear(input_dim, config.inner, bias=False) if config.inner else nn.Identity()
        self.linear1 = nn.Linear(config.inner or input_dim, config.width, bias=False)
        self.linear2 = nn.Linear(config.width, config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width)

    def project(self, x_I: Tensor) -> Tensor:
        """``float[..., I]`` to ``float[..., W]``, not normalized."""
        straight_W = self.linear1(self.inner(x_I))
        projected_W: Tensor = self.norm(straight_W + self.dropout(self.linear2(functional.gelu(straight_W))))
        return projected_W

    def forward(self, x_I: Tensor) -> Tensor:
        """``float[..., I]`` to ``float[..., W]`` of length one."""
        return functional.normalize(self.project(x_I), dim=-1)
