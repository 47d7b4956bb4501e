"""Fitting the probes of :mod:`pengi.facts`, before the training.

Probes know the clips they were fitted on too well: a language model that was trained behind them would believe every
word of theirs. So what it is told of a training clip comes from probes that were fitted without any clip of that clip's
group (its speaker, its recording), and are about as often wrong as the fitted ones will be in use. Of an attribute that
may have unknown values in use (an instrument that no training clip is of), some clips are told by probes that never
met their value: these can only be wrong, and the language model learns to look elsewhere.

Shape suffixes: A clips, N statistics, F values of all attributes, V values of an attribute with "none" before them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional

from pengi import weights
from pengi.data.features import FeatureCache
from pengi.data.manifest import Clip
from pengi.data.tasks import MUSIC_DOMAINS, SPEECH_DOMAINS
from pengi.facts import Facts
from pengi.model import PengiModel, limit_tokens
from pengi.progress import track
from pengi.training.align import LABEL_SMOOTHING, NONE, aspect_value

FORMAT = 2
FOLDS = 3
UNKNOWN_SHARE = 0.3  # of the clips: told by probes that never met their value, where values are open
STEPS, CLIPS = 1000, 128
LR, WEIGHT_DECAY, DROPOUT = 3e-3, 0.01, 0.3
UNMET = -30.0  # logit of a value that a probe never met: in use it would not have it
NONE_SHARE = 0.5  # of a batch: clips that have nothing for the attribute
READ_TOGETHER = 32
# Whoever speaks has a gender and a language, and music has instruments and a genre, where no label says which.
UNLABELLED = {
    **dict.fromkeys(("gender", "language", "emotion"), SPEECH_DOMAINS),
    **dict.fromkeys(("instrument", "genre"), MUSIC_DOMAINS),
}


@dataclass(frozen=True)
class Heard:
    """What probes hear of training clips that they were not fitted on."""

    logits_AF: Tensor
    place_of: dict[str, int]
    """Row of a clip's id."""

    def batch(self, clip_ids: Sequence[str]) -> Tensor:
        """``float32[A, F]`` of some clips."""
        return self.logits_AF[[self.place_of[clip_id] for clip_id in clip_ids]]


def values_of_attributes(names: Sequence[str], clips: Sequence[Clip]) -> dict[str, tuple[str, ...]]:
    """Every value that the clips have for each attribute, sorted."""
    return {name: tuple(sorted({aspect_value(name, clip) for clip in clips} - {NONE})) for name in names}


def fit_facts(model: PengiModel, caches: Sequence[FeatureCache], clips: Sequence[Clip], seed: int) -> Heard:
    """Fit the probes of a model, and others for what its training clips are told as; or take those of before.

    Fits are kept in the cache, so that a resumed run does not make them again.

    Args:
        model: its ``facts`` are filled.
        caches: features of each branch.
        clips: to be fitted on; those that lack features are left out.
        seed: of the batches.
    """
    facts = model.facts
    assert facts is not None
    known = [clip for clip in clips if all(clip.id in cache for cache in caches)]
    read_AN = _read(model, caches, known)
    facts.mean_N.copy_(read_AN.mean(0))
    facts.deviation_N.copy_(read_AN.std(0).clamp(min=1e-3))
    kept = weights.cache_folder().parent / "probes" / f"{_key(facts, read_AN, known, seed)}.safetensors"
    if kept.is_file():
        fitted = load_file(kept)
    else:
        fitted = _fit_all(facts, facts.standardised(read_AN), known, seed)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=kept.parent, delete=False) as partial:
            partial.write(save(fitted))
        Path(partial.name).replace(kept)
    facts.weight_FN.copy_(fitted["weight_FN"])
    facts.bias_F.copy_(fitted["bias_F"])
    return Heard(fitted["logits_AF"], {clip.id: place for place, clip in enumerate(known)})


def _key(facts: Facts, read_AN: Tensor, clips: Sequence[Clip], seed: int) -> str:
    """Names a fit by everything it depends on."""
    values = [[aspect_value(name, clip) for name in facts.spans] for clip in clips]
    about = [[clip.id, clip.group, clip.source, clip.domain] for clip in clips]
    probes = [FORMAT, FOLDS, UNKNOWN_SHARE, STEPS, CLIPS, LR, WEIGHT_DECAY, DROPOUT, NONE_SHARE, seed]
    found = hashlib.sha256(json.dumps([probes, facts.config.model_dump(), about, values]).encode())
    found.update(read_AN.numpy().data)
    return found.hexdigest()[:24]


def _fit_all(facts: Facts, inputs_AN: Tensor, known: Sequence[Clip], seed: int) -> dict[str, Tensor]:
    """Weights and biases of the probes, and what the others hear of each clip, from standardised statistics."""
    logits_AF = torch.zeros(len(known), len(facts.bias_F))
    weight_FN, bias_F = torch.zeros_like(facts.weight_FN), torch.zeros_like(facts.bias_F)
    for name, (start, end) in track(list(facts.spans.items()), "probes"):
        values, read_N = facts.attributes[name], facts.read_by(name)
        own_AN = inputs_AN[:, read_N]
        probe = _fit(own_AN, _targets(name, values, known), seed)
        weight_FN[start:end, read_N], bias_F[start:end] = probe.weight_VN, probe.bias_V
        unknown_A = _unknown(name, known) if name in facts.config.open else torch.zeros(len(known), dtype=torch.bool)
        for by_value, told_A in ((False, ~unknown_A), (True, unknown_A)):
            fold_A = _value_folds(name, known) if by_value else _folds(name, known)
            for fold in range(FOLDS if bool(told_A.any()) else 0):
                own_A, others_A = told_A & (fold_A == fold), fold_A != fold
                others = [clip for clip, other in zip(known, others_A.tolist(), strict=True) if other]
                probe = _fit(own_AN[others_A], _targets(name, values, others), seed + 1 + fold)
                met = {NONE, *(aspect_value(name, clip) for clip in others)}
                unmet_V = torch.tensor([value not in met for value in (NONE, *values)])
                logits_CV = own_AN[own_A] @ probe.weight_VN.T + probe.bias_V
                logits_AF[own_A, start:end] = logits_CV.masked_fill(unmet_V, UNMET)
        if not any(aspect_value(name, clip) == NONE for clip in known):
            # Label smoothing alone would leave some chance that it is absent, and hide it where the probe is unsure.
            weight_FN[start], bias_F[start], logits_AF[:, start] = 0.0, UNMET, UNMET
    return {"weight_FN": weight_FN, "bias_F": bias_F, "logits_AF": logits_AF}


@torch.no_grad()
def _read(model: PengiModel, caches: Sequence[FeatureCache], clips: Sequence[Clip]) -> Tensor:
    """Statistics of clips, ``float32[A, N]``."""
    assert model.facts is not None
    rows = []
    chosen = [(model.branches[place], caches[place]) for place in model.facts.config.branches]
    for start in range(0, len(clips), READ_TOGETHER):
        ids = [clip.id for clip in clips[start : start + READ_TOGETHER]]
        tokens = [limit_tokens(*branch.tokens(cache.batch(ids)), branch.config.max_tokens) for branch, cache in chosen]
        rows.append(model.facts.read(tokens))
    return torch.cat(rows)


def _folds(name: str, clips: Sequence[Clip]) -> Tensor:
    """Which fold each clip is in, ``int64[A]``, the same on every machine.

    All clips of a group are in one, or a speaker or a recording would be known already. Where very few groups have a
    value, their clips are spread all the same: probes that never met the value could only tell another. So are clips
    that have none: a whole kind of recordings would else be new to the probes, as few kinds are in use.
    """
    groups: dict[str, set[str]] = {}
    for clip in clips:
        groups.setdefault(aspect_value(name, clip), set()).add(clip.group or clip.id)
    spread = {NONE, *(value for value, found in groups.items() if len(found) < FOLDS)}
    keys = [clip.id if aspect_value(name, clip) in spread else clip.group or clip.id for clip in clips]
    return torch.tensor([_drawn(key) % FOLDS for key in keys])


def _value_folds(name: str, clips: Sequence[Clip]) -> Tensor:
    """Which fold each clip is in, ``int64[A]``: all clips of a value in one, those that have none in no other's."""
    values = [aspect_value(name, clip) for clip in clips]
    return torch.tensor([FOLDS if value == NONE else _drawn(value) % FOLDS for value in values])


def _unknown(name: str, clips: Sequence[Clip]) -> Tensor:
    """Which clips are told by probes that never met their value, ``bool[A]``; none that have no value."""
    chosen = [_drawn(f"unknown {clip.id}") % 1000 < 1000 * UNKNOWN_SHARE for clip in clips]
    return torch.tensor([one and aspect_value(name, clip) != NONE for one, clip in zip(chosen, clips, strict=True)])


def _drawn(key: str) -> int:
    """A large number for a key, the same on every machine."""
    return int(hashlib.sha256(key.encode()).hexdigest(), 16)


@dataclass(frozen=True)
class _Targets:
    """What a probe is to say of each clip, out of so many values, and how often the clip is drawn."""

    value_A: Tensor
    chance_A: Tensor
    values: int


@dataclass(frozen=True)
class _Probe:
    weight_VN: Tensor
    bias_V: Tensor


def _targets(name: str, values: Sequence[str], clips: Sequence[Clip]) -> _Targets:
    """Values and sources that many clips have are drawn more often than others, but not as much more often.

    A clip whose value is not known is never drawn.
    """
    place_of = {value: place + 1 for place, value in enumerate(values)}
    found = [place_of.get(aspect_value(name, clip), 0) for clip in clips]
    counts = Counter((value, clip.source) for value, clip in zip(found, clips, strict=True))
    chance_A = torch.tensor([counts[value, clip.source] ** -0.5 for value, clip in zip(found, clips, strict=True)])
    value_A = torch.tensor(found)
    absent_A = value_A == 0
    unlabelled = UNLABELLED.get(name, frozenset())
    chance_A[absent_A & torch.tensor([clip.domain in unlabelled for clip in clips])] = 0.0
    for rows_A, share in ((absent_A, NONE_SHARE), (~absent_A, 1.0 - NONE_SHARE)):
        chance_A[rows_A] *= share / chance_A[rows_A].sum().clamp(min=1e-9)
    return _Targets(value_A, chance_A, len(values) + 1)


def _fit(inputs_AN: Tensor, targets: _Targets, seed: int) -> _Probe:
    """A linear layer, by AdamW with dropout of its inputs."""
    generator = torch.Generator().manual_seed(seed)
    weight_VN = torch.zeros(targets.values, inputs_AN.shape[1], requires_grad=True)
    bias_V = torch.zeros(targets.values, requires_grad=True)
    optimizer = torch.optim.AdamW([weight_VN, bias_V], lr=LR, weight_decay=WEIGHT_DECAY)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        drawn = torch.multinomial(targets.chance_A, CLIPS, replacement=True, generator=generator)
        kept_CN = torch.rand(CLIPS, inputs_AN.shape[1], generator=generator) >= DROPOUT
        logits_CV = (inputs_AN[drawn] * kept_CN / (1 - DROPOUT)) @ weight_VN.T + bias_V
        loss = functional.cross_entropy(logits_CV, targets.value_A[drawn], label_smoothing=LABEL_SMOOTHING)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return _Probe(weight_VN.detach(), bias_V.detach())
