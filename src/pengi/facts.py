"""What linear probes hear, told in words.

A linear layer on the statistics of frozen audio tokens often knows an attribute of a recording (the instrument, the
word spoken, the genre) better than a few places of a prefix that were trained through a language model. So its
likeliest values are written into the prefix behind those of the branches, spelled in the language model's own
embeddings:

    instrument  oboe (0.9)  clarinet (0.1)      word  seven (1.0)  eleven (0.0)

and a language model, which has read such lists all its life, repeats what it is asked for. An attribute that may
well be absent is left out, and what only belongs to another one (the size of a drink) with it. The layer is fitted
before the training (:mod:`pengi.training.facts`) and stays as it is.

Shape suffixes: B rows, T audio tokens, I token width, N statistics, V values of an attribute with "none" before them, F
values of all attributes, K values told, L tokens of a value, P prefix embeddings, D language-model embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pengi.config import FactsConfig
from pengi.errors import ConfigError, no_such
from pengi.mapper import Spell, masked_mean

QUARTERS = 4
OUTLIER = 5.0  # standard deviations, where statistics are cut
LEFT_OUT = 0.1  # chance of "none" from which an attribute is not told

Masked = tuple[Tensor, Tensor]
"""A padded sequence ``[B, T, ...]`` and its mask ``bool[B, T]``."""


def statistics(tokens_BTI: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean, maximum and deviation of a row's tokens, and the mean of each quarter of it: ``float32[B, 7 I]``.

    A row of fewer than four tokens has its mean for the quarters that are empty; a row of none has zeros.
    """
    tokens_BTI = tokens_BTI.float()
    some_B1 = mask_BT.any(1, keepdim=True)
    mean_BI = masked_mean(tokens_BTI, mask_BT)
    most_BI = tokens_BTI.masked_fill(~mask_BT[..., None], -torch.inf).amax(1)
    spread_BI = masked_mean((tokens_BTI - mean_BI[:, None]).square(), mask_BT).sqrt()
    place_BT = mask_BT.cumsum(1) - 1
    quarter_BT = place_BT * QUARTERS // mask_BT.sum(1, keepdim=True).clamp(min=1)
    quarters = []
    for number in range(QUARTERS):
        within_BT = mask_BT & (quarter_BT == number)
        quarters.append(torch.where(within_BT.any(1, keepdim=True), masked_mean(tokens_BTI, within_BT), mean_BI))
    found_BN = torch.cat([mean_BI, most_BI, spread_BI, *quarters], 1)
    return torch.where(some_B1, found_BN, 0.0)


class Facts(nn.Module):
    """The probes of all attributes, and the words for what they hear.

    Args:
        config: attributes with their values, and the branches that are read.
        widths: token width of each of these branches.
        sequences: for each of them, whether it gives a sequence of tokens, of which statistics are taken, or one token
            for a whole window, which is read as it is (the mean, where there are several windows).
        spell: the language model's embeddings of a text.

    Raises:
        ConfigError: if an attribute has no values, or ``only``, ``within`` or ``open`` name what is not there.
    """

    mean_N: Tensor
    deviation_N: Tensor
    weight_FN: Tensor
    bias_F: Tensor

    def __init__(self, config: FactsConfig, widths: Sequence[int], sequences: Sequence[bool], spell: Spell) -> None:
        super().__init__()
        self.config = config
        self.sequences = tuple(sequences)
        self.attributes = {name: config.values.get(name, ()) for name in config.attributes}
        for name, values in self.attributes.items():
            if not values:
                raise ConfigError(f"the attribute '{name}' of model.facts has no values")
        sizes = [(3 + QUARTERS) * width if whole else width for width, whole in zip(widths, sequences, strict=True)]
        bounds = dict(zip(config.branches, pairwise(accumulate(sizes, initial=0)), strict=True))
        for name, places in config.only.items():
            if name not in self.attributes or not set(places) <= set(config.branches):
                raise ConfigError(f"model.facts.only names '{name}' or a branch that model.facts does not")
        for name in (*config.within, *config.within.values(), *config.open):
            if name not in self.attributes:
                raise ConfigError(no_such("attribute", name, self.attributes))
        self.columns = {name: [bounds[place] for place in places] for name, places in config.only.items()}
        counts = [len(values) + 1 for values in self.attributes.values()]
        self.spans = dict(zip(self.attributes, pairwise(accumulate(counts, initial=0)), strict=True))
        self.register_buffer("mean_N", torch.zeros(sum(sizes)))
        self.register_buffer("deviation_N", torch.ones(sum(sizes)))
        self.register_buffer("weight_FN", torch.zeros(sum(counts), sum(sizes)))
        self.register_buffer("bias_F", torch.zeros(sum(counts)))
        separator_D = spell(",").float()[0]
        self.share_2D = nn.Parameter(torch.stack([separator_D, torch.zeros_like(separator_D)]))
        for name, values in self.attributes.items():
            rows = [spell(" " + value).float() for value in values]
            lengths = torch.tensor([len(row) for row in rows])
            self.register_buffer(f"{name}_name_LD", spell(" " + name).float(), persistent=False)
            self.register_buffer(f"{name}_VLD", pad_sequence(rows, batch_first=True), persistent=False)
            self.register_buffer(f"{name}_VL", torch.arange(int(lengths.max())) < lengths[:, None], persistent=False)

    def read(self, tokens: Sequence[Masked]) -> Tensor:
        """Statistics ``float32[B, N]`` of the tokens of the branches that are read, as they are."""
        return torch.cat(
            [
                statistics(*masked) if whole else masked_mean(masked[0].float(), masked[1])
                for masked, whole in zip(tokens, self.sequences, strict=True)
            ],
            1,
        )

    def standardised(self, read_BN: Tensor) -> Tensor:
        """Statistics in deviations from their mean over the training clips, without outliers."""
        return ((read_BN - self.mean_N) / self.deviation_N).clamp(-OUTLIER, OUTLIER)

    def read_by(self, name: str) -> Tensor:
        """Which statistics the probe of an attribute reads, ``bool[N]``."""
        read_N = torch.full(self.mean_N.shape, name not in self.columns)
        for start, end in self.columns.get(name, ()):
            read_N[start:end] = True
        return read_N

    def logits(self, tokens: Sequence[Masked]) -> Tensor:
        """Of every value of every attribute, ``float32[B, F]``; the first of each attribute is "none"."""
        logits_BF: Tensor = self.standardised(self.read(tokens)) @ self.weight_FN.T + self.bias_F
        return logits_BF

    def forward(self, logits_BF: Tensor) -> Masked:
        """The prefix that tells logits: ``float32[B, P, D]`` and its mask."""
        shares = {name: logits_BF[:, start:end].log_softmax(-1) for name, (start, end) in self.spans.items()}
        present = {name: share_BV[:, :1].exp() < LEFT_OUT for name, share_BV in shares.items()}
        told = []
        for name, share_BV in shares.items():
            told_B1 = present[name] & present[self.config.within.get(name, name)]
            values, mask = self._tell(name, share_BV)
            told.append((values, mask & told_B1))
        return torch.cat([values for values, _ in told], 1), torch.cat([mask for _, mask in told], 1)

    def _tell(self, name: str, share_BV: Tensor) -> Masked:
        """One attribute: its name, then its likeliest values, each with an embedding that tells its log-share."""
        share_BK, best_BK = share_BV[:, 1:].topk(min(self.config.told, share_BV.shape[1] - 1))
        share_BKD = self.share_2D[0] + share_BK[..., None] * self.share_2D[1]
        values_BKLD = torch.cat([getattr(self, f"{name}_VLD")[best_BK], share_BKD[:, :, None]], 2)
        spelled_BKL = getattr(self, f"{name}_VL")[best_BK]
        mask_BKL = torch.cat([spelled_BKL, spelled_BKL.new_ones(*best_BK.shape, 1)], 2)
        name_BLD = getattr(self, f"{name}_name_LD").expand(len(share_BV), -1, -1)
        mask_BP = torch.cat([mask_BKL.new_ones(name_BLD.shape[:2]), mask_BKL.flatten(1)], 1)
        return torch.cat([name_BLD, values_BKLD.flatten(1, 2)], 1), mask_BP
