"""What is done to audio tokens during training, between encoder and mapper. Seeded by step.

Shape suffixes: B clips, T tokens, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pengi.data.manifest import Clip
from pengi.data.pseudo import ClassDirections
from pengi.data.tasks import SPEECH_DOMAINS
from pengi.model import Masked


@dataclass(frozen=True)
class TokenEdits:
    """Token dropout, branch dropout and class directions for one batch.

    Branch dropout hides one of several audio branches: the first (sounds) for speech, the others for all else, so that
    each learns to answer what it is best at on its own. A clip moved to a class keeps the first branch only, since
    the others still describe the clip it was made from.
    """

    clips: Sequence[Clip]
    moved_to: Sequence[int | None]
    directions: ClassDirections | None
    token_dropout: float
    branch_dropout: float
    seed: int

    def __call__(self, tokens: list[Masked]) -> list[Masked]:
        generator = torch.Generator().manual_seed(self.seed)
        tokens = [(values, mask.clone()) for values, mask in tokens]
        tokens[0] = (self._move(tokens[0], generator), tokens[0][1])
        for row, clip in enumerate(self.clips):
            self._drop_branches(row, clip, tokens, generator)
        return [(values, self._drop_tokens(mask, generator)) for values, mask in tokens]

    def _move(self, masked: Masked, generator: torch.Generator) -> Tensor:
        values_BTD, mask_BT = masked
        if self.directions is None or all(index is None for index in self.moved_to):
            return values_BTD
        rows = list(values_BTD)
        for row, index in enumerate(self.moved_to):
            if index is not None:
                real = mask_BT[row]
                moved_TD = values_BTD[row].detach().clone()
                moved_TD[real] = self.directions.draw(moved_TD[real], index, generator)
                rows[row] = moved_TD
        return torch.stack(rows)

    def _drop_branches(self, row: int, clip: Clip, tokens: list[Masked], generator: torch.Generator) -> None:
        if len(tokens) == 1:
            return
        drop = float(torch.rand((), generator=generator)) < self.branch_dropout
        if self.moved_to[row] is not None or (drop and clip.domain not in SPEECH_DOMAINS):
            for _, mask in tokens[1:]:
                mask[row] = False
        elif drop:
            tokens[0][1][row] = False

    def _drop_tokens(self, mask_BT: Tensor, generator: torch.Generator) -> Tensor:
        """Hide tokens at random; a row never loses its last token."""
        kept_BT = mask_BT & (torch.rand(mask_BT.shape, generator=generator) >= self.token_dropout)
        return torch.where(kept_BT.any(1, keepdim=True), kept_BT, mask_BT)
