"""What linear probes hear, told in words.

A linear layer on the statistics of frozen audio tokens often knows an attribute of a recording (the instrument, the
word spoken, the genre) better than a few places of a prefix that were trained through a language model. So its
likeliest values are written into the prefix behind those of the branches, spelled in the language model's own
embeddings:

    instrument  oboe (0.9)  clarinet (0.1)      word  seven (1.0)  eleven (0.0)

and a language model, which has read such lists all its life, repeats what it is asked for. An attribute that is
more likely absent is left out, and what only belongs to another one (the size of a drink) with it; so is one whose
likeliest value is not likely (``least``): it may have a value that the probe does not know. The layer is fitted before
the training (:mod:`pengi.training.facts`) and stays as it is.

What is heard at some place of a recording, as a spoken word is, drowns in statistics of the whole. Its probe is a
:class:`Spotter`: it reads every token, and the places that tell most decide. An attribute can be read in both ways: it
is told by the mean of their log-shares, which is less sure where they disagree.

Shape suffixes: B rows, T audio tokens, I token width, N statistics, V values of an attribute with "none" before them, F
values of all attributes, G those that statistics are read for, U what a spotter listens for ("none" and words), S width
of neighbouring tokens together, K values told, L tokens of a value, P prefix embeddings, D language-model embedding
width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from pengi.config import FactsConfig
from pengi.errors import ConfigError, no_such
from pengi.mapper import Spell, masked_mean
from pengi.vocabulary import Vocabulary, exclusive_log_shares

QUARTERS = 4
OUTLIER = 5.0  # standard deviations, where statistics and what spotters read are cut
NEIGHBOURS = 2  # tokens that a spotter reads at once
LEFT_OUT = 0.5  # chance of "none" from which an attribute is not told

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


def heard_anywhere(tokens_BTI: Tensor, mask_BT: Tensor, weight_US: Tensor, bias_U: Tensor) -> Tensor:
    """What a linear layer on neighbouring tokens hears at the places that tell most: ``float32[B, U]``.

    Places are pooled by the logarithm of their mean exponential (log-sum-exp pooling, Pinheiro and Collobert 2015). A
    row without tokens has the bias alone.
    """
    tokens_BTI = tokens_BTI * mask_BT[..., None]
    following = [functional.pad(tokens_BTI, (0, 0, 0, step))[:, step:] for step in range(NEIGHBOURS)]
    counts_B1 = mask_BT.sum(1, keepdim=True)
    # Of a row without tokens nothing is hidden: all at minus infinity would have no gradient.
    hidden_BT = ~mask_BT & (counts_B1 > 0)
    heard_BTU = (torch.cat(following, -1) @ weight_US.T).masked_fill(hidden_BT[..., None], -torch.inf)
    pooled_BU = heard_BTU.logsumexp(1) - counts_B1.clamp(min=1).log()
    return torch.where(counts_B1 > 0, pooled_BU, 0.0) + bias_U


def together(ways: Sequence[Tensor]) -> Tensor:
    """What several probes hear, each ``[B, V]`` logits: as it is of one, the mean of their log-shares of more."""
    return ways[0] if len(ways) == 1 else torch.stack([way_BV.log_softmax(-1) for way_BV in ways]).mean(0)


class Spotter(nn.Module):
    """The probe of an attribute that is heard at places of a recording.

    Values that share words share what is learned of them, "a bit of sugar" and "a bit of milk": each word is listened
    for on its own, anywhere, and a value is as likely as its words together.

    Args:
        values: of the attribute, without "none".
        width: of a token.
    """

    mean_I: Tensor
    deviation_I: Tensor
    weight_US: Tensor
    bias_U: Tensor
    words_VU: Tensor

    def __init__(self, values: Sequence[str], width: int) -> None:
        super().__init__()
        words = sorted({word for value in values for word in value.split()})
        rows = [[False] * (1 + len(words)) for _ in range(1 + len(values))]
        rows[0][0] = True
        for row, value in zip(rows[1:], values, strict=True):
            for word in value.split():
                row[1 + words.index(word)] = True
        self.register_buffer("words_VU", torch.tensor(rows, dtype=torch.float32), persistent=False)
        self.register_buffer("mean_I", torch.zeros(width))
        self.register_buffer("deviation_I", torch.ones(width))
        self.register_buffer("weight_US", torch.zeros(1 + len(words), NEIGHBOURS * width))
        self.register_buffer("bias_U", torch.zeros(1 + len(words)))

    def standardised(self, tokens_BTI: Tensor) -> Tensor:
        """Tokens in deviations from their mean over the training clips, without outliers."""
        return ((tokens_BTI.float() - self.mean_I) / self.deviation_I).clamp(-OUTLIER, OUTLIER)

    def forward(self, tokens_BTI: Tensor, mask_BT: Tensor) -> Tensor:
        """Logits of "none" and every value, ``float32[B, V]``."""
        heard_BU = heard_anywhere(self.standardised(tokens_BTI), mask_BT, self.weight_US, self.bias_U)
        return heard_BU @ self.words_VU.T


class Facts(nn.Module):
    """The probes of all attributes, and the words for what they hear.

    Args:
        config: attributes with their values, and the branches that are read.
        widths: token width of each of these branches.
        sequences: for each of them, whether it gives a sequence of tokens, of which statistics are taken, or one token
            for a whole window, which is read as it is (the mean, where there are several windows).
        spell: the language model's embeddings of a text.

    Raises:
        ConfigError: if an attribute has no values, ``only``, ``within``, ``spotted`` or ``open`` name what is not
            there, or an attribute is spotted in a branch that gives no sequence of tokens.
    """

    mean_N: Tensor
    deviation_N: Tensor
    weight_GN: Tensor
    bias_G: Tensor

    def __init__(self, config: FactsConfig, widths: Sequence[int], sequences: Sequence[bool], spell: Spell) -> None:
        super().__init__()
        self.config = config
        self.sequences = tuple(sequences)
        self.attributes = {name: config.values.get(name, ()) for name in config.attributes}
        for name, values in self.attributes.items():
            if not values:
                raise ConfigError(f"the attribute '{name}' of model.facts has no values")
        by_statistics = {
            name: values
            for name, values in self.attributes.items()
            if name in config.only or name not in config.spotted
        }
        self.rows = _spans(by_statistics)
        needed = {place for name in by_statistics for place in config.only.get(name, config.branches)}
        self.needed = tuple(place in needed for place in config.branches)
        sizes = [
            ((3 + QUARTERS) * width if whole else width) if need else 0
            for width, whole, need in zip(widths, sequences, self.needed, strict=True)
        ]
        bounds = dict(zip(config.branches, pairwise(accumulate(sizes, initial=0)), strict=True))
        for name, places in config.only.items():
            if name not in self.attributes or not set(places) <= set(config.branches):
                raise ConfigError(f"model.facts.only names '{name}' or a branch that model.facts does not")
        for name in (*config.within, *config.within.values(), *config.spotted, *config.open):
            if name not in self.attributes:
                raise ConfigError(no_such("attribute", name, self.attributes))
        self.columns = {name: [bounds[place] for place in places] for name, places in config.only.items()}
        self.spans = _spans(self.attributes)
        self.vocabularies = {name: Vocabulary(values) for name, values in self.attributes.items()}
        self.spotters = nn.ModuleDict(
            {name: Spotter(self.attributes[name], widths[self.spotted_at(name)]) for name in config.spotted}
        )
        self.register_buffer("mean_N", torch.zeros(sum(sizes)))
        self.register_buffer("deviation_N", torch.ones(sum(sizes)))
        read = sum(end - start for start, end in self.rows.values())
        self.register_buffer("weight_GN", torch.zeros(read, sum(sizes)))
        self.register_buffer("bias_G", torch.zeros(read))
        separator_D = spell(",").float()[0]
        self.share_2D = nn.Parameter(torch.stack([separator_D, torch.zeros_like(separator_D)]))
        for name, values in self.attributes.items():
            rows = [spell(" " + value).float() for value in values]
            lengths = torch.tensor([len(row) for row in rows])
            self.register_buffer(f"{name}_name_LD", spell(" " + name).float(), persistent=False)
            self.register_buffer(f"{name}_VLD", pad_sequence(rows, batch_first=True), persistent=False)
            self.register_buffer(f"{name}_VL", torch.arange(int(lengths.max())) < lengths[:, None], persistent=False)

    def read(self, tokens: Sequence[Masked]) -> Tensor:
        """Statistics ``float32[B, N]`` of the tokens of the branches that are read, as they are.

        A branch that is read by spotters only has none.
        """
        none_B0 = tokens[0][0].new_zeros(len(tokens[0][0]), 0, dtype=torch.float32)
        return torch.cat(
            [
                none_B0,
                *(
                    statistics(*masked) if whole else masked_mean(masked[0].float(), masked[1])
                    for masked, whole, need in zip(tokens, self.sequences, self.needed, strict=True)
                    if need
                ),
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

    def spotted_at(self, name: str) -> int:
        """Which of the branches that are read, counted among them, a spotted attribute is heard in.

        Raises:
            ConfigError: if that is not a branch with a sequence of tokens.
        """
        branch = self.config.spotted[name]
        place = self.config.branches.index(branch) if branch in self.config.branches else None
        if place is None or not self.sequences[place]:
            raise ConfigError(f"'{name}' in model.facts.spotted needs a branch that is read and has many tokens")
        return place

    def logits(self, tokens: Sequence[Masked]) -> Tensor:
        """Of every value of every attribute, ``float32[B, F]``; the first of each attribute is "none"."""
        read_BG = self.standardised(self.read(tokens)) @ self.weight_GN.T + self.bias_G
        heard = []
        for name in self.attributes:
            ways = []
            if name in self.rows:
                start, end = self.rows[name]
                ways.append(read_BG[:, start:end])
            if name in self.spotters:
                ways.append(self.spotters[name](*tokens[self.spotted_at(name)]))
            heard.append(together(ways))
        return torch.cat(heard, 1)

    def labels_heard(self, logits_BF: Tensor, labels: Sequence[str]) -> Tensor:
        """By how much the score of each label rises with what is heard of it, ``float32[B, L]``.

        The labels are taken for values of the attribute that most of them are values of, the first of several. What is
        added is the weight ``labels`` of the configuration times :func:`pengi.vocabulary.exclusive_log_shares`: all of
        it if all are values, and the less the fewer are, down to nothing if only half of them are. What a probe does
        not know it takes for a value that it knows, and is as sure of that.
        """
        places = {name: [words.place(label) for label in labels] for name, words in self.vocabularies.items()}
        name = max(places, key=lambda name: len(labels) - places[name].count(None))
        start, end = self.spans[name]
        share_BV = logits_BF[:, start:end].softmax(-1)
        trusted = max(0.0, 1.0 - 2.0 * places[name].count(None) / len(labels))
        return self.config.labels * trusted * exclusive_log_shares(share_BV[:, 1:], places[name], share_BV[:, 0])

    def forward(self, logits_BF: Tensor) -> Masked:
        """The prefix that tells logits: ``float32[B, P, D]`` and its mask."""
        shares = {name: logits_BF[:, start:end].log_softmax(-1) for name, (start, end) in self.spans.items()}
        present = {name: self.present(share_BV) for name, share_BV in shares.items()}
        told = []
        for name, share_BV in shares.items():
            told_B1 = present[name] & present[self.config.within.get(name, name)]
            values, mask = self._tell(name, share_BV)
            told.append((values, mask & told_B1))
        return torch.cat([values for values, _ in told], 1), torch.cat([mask for _, mask in told], 1)

    def present(self, share_BV: Tensor) -> Tensor:
        """Of log-shares, whether there is a value to be told, ``bool[B, 1]``: likely there, and likely that one."""
        return (share_BV[:, :1].exp() < LEFT_OUT) & (share_BV[:, 1:].amax(1, keepdim=True).exp() >= self.config.least)

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


def _spans(attributes: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, int]]:
    """Where the values of each attribute stand in a row, "none" before them."""
    counts = [len(values) + 1 for values in attributes.values()]
    return dict(zip(attributes, pairwise(accumulate(counts, initial=0)), strict=True))
