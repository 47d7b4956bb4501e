"""Fitting how much the logit of a class tells of each of its words, before the training.

A branch of words (:class:`pengi.mapper.WordsMapper`) weighs class logits by a scale and a bias for each word. Most
words have no training clip, and those that have some mostly have few. So what counts for a word is what counts for all
words,

    u_v = a z + b x + c mean + d deviation + e named_v + scale_v z + bias_v

of the class's logit x, standardised to z, its usual height and deviation, and whether the word is a label that people
gave to recordings rather than the name of a class; and beside it a scale and a bias of its own, held near zero, which
labels that no training clip is about are without. The more clips speak for or against a word, the further they can pull
it away. All of it is one multinomial regression on the clips' right words, with logit adjustment (Menon et al. 2021),
or words that few clips are about would be held for unlikely in use, too. What comes out is a scale and a bias for each
word, since the rest is the same for every recording.

Shape suffixes: A clips, C clips of a batch, I classes, V words.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pengi.data.manifest import Clip
from pengi.mapper import WordsMapper
from pengi.training.align import LABEL_SMOOTHING

STEPS, CLIPS = 600, 128
SHARED_LR, OWN_LR = 0.05, 0.01
FIRST_SCALE = 3.0
HELD = 0.003  # weight of the squares of the words' own scales and biases in the loss
LOGIT_ADJUSTMENT = 0.5  # so much of each word's log-chance in the data is not learned
RAREST = 1e-4  # chance below which a word counts as no rarer
MEAN_UNIT = 3.0  # of the classes' usual logits, about their deviation over classes


def right_words(words: Sequence[str], clips: Sequence[Clip]) -> Tensor:
    """Each clip's right words in equal parts, ``float32[A, V]``; zeros for one that is about none of the words."""
    place_of = {word: place for place, word in enumerate(words)}
    right_AV = torch.zeros(len(clips), len(words))
    for row, clip in enumerate(clips):
        places = [place_of[event] for event in clip.events if event in place_of]
        right_AV[row, places] = 1.0 / max(len(places), 1)
    return right_AV


def fit_words(
    mapper: WordsMapper,
    pooled_AI: Tensor,
    clips: Sequence[Clip],
    chances: Sequence[float],
    named: Collection[str],
    seed: int,
) -> None:
    """Fit the scale and the bias of every word of a mapper, whose standardisation stays as it is.

    Without a clip that is about any of its words the mapper is left as it is.

    Args:
        mapper: of a branch of words.
        pooled_AI: the class logits of each clip, pooled as the mapper pools them.
        clips: the training clips.
        chances: how often each is drawn relative to the others.
        named: the words that are labels of recordings.
        seed: of the batches.
    """
    right_AV = right_words(mapper.words, clips)
    chance_A = torch.tensor(chances) * (right_AV.sum(1) > 0)
    if not bool((chance_A > 0).any()):
        return
    chance_A = chance_A / chance_A.sum()
    prior_V = LOGIT_ADJUSTMENT * (chance_A @ right_AV + RAREST).log()
    classes_V = mapper.classes_V
    mean_V, deviation_V = mapper.mean_I[classes_V], mapper.deviation_I[classes_V]
    named_V = torch.tensor([float(word in named) for word in mapper.words])
    # Clips that are about other things would only hold a label without clips for unlikely.
    own_V = ((right_AV[chance_A > 0].sum(0) > 0) | (named_V == 0)).float()
    standard_AV = ((pooled_AI[:, classes_V] - mean_V) / deviation_V).float()

    shared = torch.tensor([FIRST_SCALE, 0.0, 0.0, 0.0, 0.0], requires_grad=True)
    own_2V = torch.zeros(2, len(mapper.words), requires_grad=True)

    def weights() -> tuple[Tensor, Tensor]:
        scale, raw, usual, spread, label = shared
        # x = deviation z + mean
        scale_V = scale + raw * deviation_V + own_2V[0] * own_V
        bias_V = raw * mean_V + usual * mean_V / MEAN_UNIT + spread * deviation_V + label * named_V
        return scale_V, bias_V + own_2V[1] * own_V

    optimizer = torch.optim.Adam([{"params": [shared]}, {"params": [own_2V]}])
    generator = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        rate = 0.5 * (1 + math.cos(math.pi * step / STEPS))
        for group, highest in zip(optimizer.param_groups, (SHARED_LR, OWN_LR), strict=True):
            group["lr"] = rate * highest
        drawn = torch.multinomial(chance_A, CLIPS, replacement=True, generator=generator)
        scale_V, bias_V = weights()
        loss = functional.cross_entropy(
            scale_V * standard_AV[drawn] + bias_V + prior_V, right_AV[drawn], label_smoothing=LABEL_SMOOTHING
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss + HELD * own_2V.square().sum())
        optimizer.step()
    scale_V, bias_V = (found.detach() for found in weights())
    # The bias that all words have tells none from another; without it logits stay near zero.
    mapper.weigh(scale_V / mapper.sharpness, (bias_V - bias_V.mean()) / mapper.sharpness)
