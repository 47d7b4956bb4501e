"""Listening for what a prompt mentions.

"Is there a siren?" asks about one word, and the list of likeliest words (:class:`pengi.mapper.WordsMapper`) names what
is loud: of two sounds in one recording often only one. So the words of a prompt that a branch of words knows are
listened for, however unlikely they are, and told in front of the prompt, in its order:

    siren (clearly) (last)  rain (hardly) (first)    "do you hear a siren before the rain?"

Each is spelled in the language model's own embeddings and followed by one embedding that tells how much of it is heard
and one that tells when, both on its own and beside the others. Where several are mentioned and levels are known, a
third one tells whether it is louder than the others. A prompt that mentions none of the words is left as it is.

Shape suffixes: A recordings, B prompts, V words, T audio tokens, K words told, L tokens of a word, F measurements, E
embeddings behind a word, P prefix embeddings, D language-model embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pengi.config import MentionsConfig
from pengi.mapper import EARLIEST, LATEST, LOWEST_SHARE, Spell, WordsMapper, near_maximum, spread_in_time, when_heard
from pengi.vocabulary import Vocabulary, tag_log_shares

Masked = tuple[Tensor, Tensor]
"""A padded sequence ``[B, T, ...]`` and its mask ``bool[B, T]``."""

HOW_MUCH = ("whole", "most", "usual", "more")
"""What is told of how much of a word is heard, from -3 to 3: the logarithm of its share in the whole recording, the
highest and the mean one of a token, and by how much the first is above that of the other words that are mentioned."""
WHEN = ("middle", "spread", "later")
"""What is told of when it is heard: its middle (-0.5 is the start of the recording, 0.5 the end), its spread, and from
-1 to 1 how surely it is later than the others."""
SHARE_UNIT = 10.0  # of log-shares, which go down to LOWEST_SHARE
SURELY_LATER = 0.1  # of the recording
SURELY_LOUDER = 6.0  # dB
SOFTER, LOUDER = " quieter", " louder"  # what the embeddings that tell levels start between


@dataclass(frozen=True)
class Heard:
    """How much of every word is heard in A recordings."""

    whole_AV: Tensor
    """Log-shares in the whole."""
    tokens_ATV: Tensor
    """Log-shares at every token."""
    mask_AT: Tensor
    level_AT: Tensor | None = None
    """How loud the recording is at every token, in dB."""

    def of(self, rows_B: Tensor) -> Heard:
        """Some of the recordings, which may come several times."""
        level_BT = None if self.level_AT is None else self.level_AT[rows_B]
        return Heard(self.whole_AV[rows_B], self.tokens_ATV[rows_B], self.mask_AT[rows_B], level_BT)

    def without(self, told_A: Tensor) -> Heard:
        """The same with recordings of which nothing is told, where ``bool[A]`` is false."""
        return replace(self, mask_AT=self.mask_AT & told_A[:, None].to(self.mask_AT.device))


class Mentions(nn.Module):
    """What is told of the words that prompts mention.

    Args:
        config: how many, and how they may be mentioned.
        mapper: of the branch of words; the caller keeps it.
        spell: the language model's embeddings of a text.
    """

    def __init__(self, config: MentionsConfig, mapper: WordsMapper, spell: Spell) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = Vocabulary(mapper.words, config.phrases)
        # The list's words are told in the same way, which training may have taught already.
        first_D, share_D = mapper.share_2D.detach().clone()
        much_FD = share_D.new_zeros(len(HOW_MUCH), len(share_D))
        much_FD[0] = SHARE_UNIT * share_D
        # An embedding of its own: beside that of a share, which is large, little of when would be left.
        early_D, late_D = (spell(text).float().mean(0) for text in (EARLIEST, LATEST))
        when_FD = torch.zeros(len(WHEN), len(early_D))
        when_FD[WHEN.index("later")] = (late_D - early_D) / 2
        self.much_FD = nn.Parameter(torch.cat([first_D[None], much_FD]))
        self.when_FD = nn.Parameter(torch.cat([(early_D + late_D)[None] / 2, when_FD]))
        self.louder_FD: nn.Parameter | None = None
        if config.levels is not None:
            soft_D, loud_D = (spell(text).float().mean(0) for text in (SOFTER, LOUDER))
            self.louder_FD = nn.Parameter(torch.stack([(soft_D + loud_D) / 2, (loud_D - soft_D) / 2]))

    @staticmethod
    def listen(mapper: WordsMapper, tokens: Masked, limited: Masked, level_AT: Tensor | None = None) -> Heard:
        """How much of every word is heard in the tokens of the branch of words.

        Args:
            mapper: of the branch.
            tokens: ``float[A, T, I]`` with their mask.
            limited: those of which it is told when words are heard, fewer if there are very many.
            level_AT: how loud the recording is at these, in dB, if that is known.
        """
        return Heard(mapper.log_shares(near_maximum(*tokens)), mapper.log_shares(limited[0]), limited[1], level_AT)

    def labels_heard(self, heard: Heard, labels: Sequence[str]) -> Tensor:
        """By how much the score of each label rises with what is heard of it, ``float32[B, L]``.

        That is the weight ``labels`` of the configuration times :func:`pengi.vocabulary.tag_log_shares`. Among
        labels none of which is a word nothing is added.
        """
        places = [self.vocabulary.place(label) for label in labels]
        return self.config.labels * tag_log_shares(heard.whole_AV, places)

    def texts_heard(self, mapper: WordsMapper, heard: Heard, texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """By how much the log-probability of each text about a recording rises with what is heard of its words.

        That is the weight ``texts`` of the configuration times the mean of the words' log-shares before they were
        sharpened. A text in which no word is counts as the mean of the others about the same recording.

        Args:
            mapper: of the branch of words.
            heard: in B recordings.
            texts: for each recording some.
        """
        rises = []
        for share_V, row in zip(heard.whole_AV / mapper.sharpness, texts, strict=True):
            places = [self.vocabulary.mentioned(text) for text in row]
            named = [float(share_V[words].mean()) if words else None for words in places]
            known = [share for share in named if share is not None]
            usual = sum(known) / len(known) if known else 0.0
            rises.append([self.config.texts * (usual if share is None else share) for share in named])
        return rises

    def forward(self, mapper: WordsMapper, heard: Heard, prompts: Sequence[str]) -> Masked:
        """What is told in front of each prompt, ``float[B, P, D]`` and its mask, padded on the right.

        Args:
            mapper: of the branch of words, for the spelling.
            heard: for each prompt the recording that it is about; of one without tokens nothing is told.
            prompts: B of them.
        """
        rows = [self.vocabulary.mentioned(prompt, self.config.most) for prompt in prompts]
        device = heard.whole_AV.device
        width = max(map(len, rows))
        padded = [[*row, *[0] * (width - len(row))] for row in rows]
        places_BK = torch.tensor(padded, dtype=torch.long, device=device)
        told_BK = torch.arange(width, device=device) < torch.tensor([len(row) for row in rows], device=device)[:, None]
        much_BKF, when_BKF = measured(heard, places_BK, told_BK)
        told = [self.much_FD[0] + much_BKF @ self.much_FD[1:], self.when_FD[0] + when_BKF @ self.when_FD[1:]]
        if self.louder_FD is not None and heard.level_AT is not None:
            told.append(self.louder_FD[0] + louder(heard, places_BK, told_BK)[..., None] * self.louder_FD[1])
        told_BKED = torch.stack(told, 2)
        values_BKLD = torch.cat([mapper.spelled_VLD[places_BK], told_BKED], 2)
        spelled_BKL = mapper.spelled_VL[places_BK]
        mask_BKL = torch.cat([spelled_BKL, spelled_BKL.new_ones(*told_BKED.shape[:3])], 2)
        if len(told) > 2:
            mask_BKL[..., -1] = told_BK.sum(1, keepdim=True) > 1
        mask_BKL &= (told_BK & heard.mask_AT.any(1, keepdim=True))[..., None]
        return values_BKLD.flatten(1, 2), mask_BKL.flatten(1)


@torch.no_grad()
def measured(heard: Heard, places_BK: Tensor, told_BK: Tensor) -> tuple[Tensor, Tensor]:
    """:data:`HOW_MUCH` and :data:`WHEN` of the words that are told, ``float32[B, K, F]``, in the recordings beside."""
    shares_BTK = _shares(heard, places_BK)
    hidden_BT1 = ~heard.mask_AT[..., None]
    counts_B1 = heard.mask_AT.sum(1, keepdim=True).clamp(min=1)
    middle_BK, spread_BK = when_heard(shares_BTK, heard.mask_AT)
    whole_BK = heard.whole_AV.gather(1, places_BK) / SHARE_UNIT
    most_BK = shares_BTK.masked_fill(hidden_BT1, LOWEST_SHARE).amax(1) / SHARE_UNIT
    usual_BK = shares_BTK.masked_fill(hidden_BT1, 0.0).sum(1) / counts_B1 / SHARE_UNIT
    later_BK = (_beside_others(middle_BK, told_BK) / SURELY_LATER).tanh()
    return (
        torch.stack([whole_BK, most_BK, usual_BK, _beside_others(whole_BK, told_BK)], -1),
        torch.stack([middle_BK, spread_BK, later_BK], -1),
    )


@torch.no_grad()
def louder(heard: Heard, places_BK: Tensor, told_BK: Tensor) -> Tensor:
    """How surely each of the words that are told is louder than the others, ``float32[B, K]`` from -1 to 1.

    A word is as loud as the recording is where it is heard, so of sounds at the same time the louder one decides.
    """
    assert heard.level_AT is not None, "levels are not known"
    weight_BTK = spread_in_time(_shares(heard, places_BK), heard.mask_AT)
    level_BK = (weight_BTK * heard.level_AT[..., None]).sum(1)
    return (_beside_others(level_BK, told_BK) / SURELY_LOUDER).tanh()


def _shares(heard: Heard, places_BK: Tensor) -> Tensor:
    """Log-shares of words at every token, ``float32[B, T, K]``."""
    return heard.tokens_ATV.gather(2, places_BK[:, None].expand(-1, heard.tokens_ATV.shape[1], -1))


def _beside_others(values_BK: Tensor, told_BK: Tensor) -> Tensor:
    """By how much each of a row's values is above the mean of the others; nothing where there is no other."""
    total_B1 = (values_BK * told_BK).sum(1, keepdim=True)
    others_B1 = told_BK.sum(1, keepdim=True) - 1
    return torch.where(others_B1 > 0, values_BK - (total_B1 - values_BK) / others_B1.clamp(min=1), 0.0)
