"""Fitting the probes of :mod:`pengi.facts`, before the training.

Probes know the clips they were fitted on too well: a language model that was trained behind them would believe every
word of theirs. So what it is told of a training clip comes from probes that were fitted without any clip of that clip's
group (its speaker, its recording), and are about as often wrong as the fitted ones will be in use. Of an attribute that
may have unknown values in use (an instrument that no training clip is of), some clips are told by probes that never
met their value: these can only be wrong, and the language model learns to look elsewhere.

Shape suffixes: A clips, C clips of a batch, N statistics, F values of all attributes, V values of an attribute with
"none" before them, T audio tokens, I their width, U and S what a spotter listens for and what it reads at once
(:mod:`pengi.facts`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional

from pengi import weights
from pengi.data.features import FeatureCache
from pengi.data.manifest import Clip
from pengi.data.tasks import MUSIC_DOMAINS, SPEECH_DOMAINS
from pengi.facts import NEIGHBOURS, Facts, Spotter, heard_anywhere, together
from pengi.model import AudioBranch, PengiModel, limit_tokens
from pengi.progress import track
from pengi.training.align import LABEL_SMOOTHING, NONE, aspect_value
from pengi.writing import replacing, writing

FORMAT = 4
FOLDS = 3
UNKNOWN_SHARE = 0.3  # of the clips: told by probes that never met their value, where values are open
STEPS, CLIPS = 1000, 128
SPOTTER_STEPS, SPOTTER_CLIPS, SPOTTER_STD = 600, 64, 0.01
LR, WEIGHT_DECAY, DROPOUT = 3e-3, 0.01, 0.3
UNMET = -30.0  # logit of a value that a probe never met: in use it would not have it
NONE_SHARE = 0.5  # of a batch: clips that have nothing for the attribute
READ_TOGETHER = 32
STANDARDISED_BY = 3000  # clips, whose tokens' mean and deviation stand for those of all
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

    The fit of each attribute is kept in the cache once it is done, so that neither a resumed run nor one that hears
    another attribute in another way makes it again.

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
    if len(facts.mean_N):  # spotters alone read no statistics
        facts.mean_N.copy_(read_AN.mean(0))
        facts.deviation_N.copy_(read_AN.std(0).clamp(min=1e-3))
    folder = weights.cache_folder().parent / "probes"
    sources = _sources(model, caches)
    files = {
        name: folder / f"{_key(facts, name, read_AN, sources, known, seed)}.safetensors" for name in facts.attributes
    }
    missing = [name for name, file in files.items() if not file.is_file()]
    listeners = _listeners(model, caches, read_AN, known, missing)
    for name in track(missing, "probes"):
        logits_AV = _fit_attribute(facts, name, listeners[name], known, seed)
        _keep(files[name], {**_fitted(facts, name), "logits_AV": logits_AV})
    logits = [_kept(facts, name, file) for name, file in files.items()]
    return Heard(torch.cat(logits, 1), {clip.id: place for place, clip in enumerate(known)})


def _fitted(facts: Facts, name: str) -> dict[str, Tensor]:
    """What a fit of an attribute determines; of its probe of statistics what it reads only."""
    found = {}
    if name in facts.rows:
        start, end = facts.rows[name]
        found["weight_VN"] = facts.weight_GN[start:end, facts.read_by(name)]
        found["bias_V"] = facts.bias_G[start:end]
    if name in facts.spotters:
        found |= {f"spotter.{part}": tensor for part, tensor in facts.spotters[name].state_dict().items()}
    return found


def _keep(file: Path, tensors: Mapping[str, Tensor]) -> None:
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        partial.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def _kept(facts: Facts, name: str, file: Path) -> Tensor:
    """Give the model what was fitted for an attribute; what other probes hear of each clip, ``float32[A, V]``."""
    tensors = load_file(file)
    if name in facts.rows:
        start, end = facts.rows[name]
        facts.weight_GN[start:end, facts.read_by(name)] = tensors["weight_VN"]
        facts.bias_G[start:end] = tensors["bias_V"]
    if name in facts.spotters:
        parts = {part.removeprefix("spotter."): tensor for part, tensor in tensors.items() if "." in part}
        facts.spotters[name].load_state_dict(parts)
    return tensors["logits_AV"]


def _sources(model: PengiModel, caches: Sequence[FeatureCache]) -> dict[int, str]:
    """Names what each spotter's branch gives: its configuration and all of its features."""
    assert model.facts is not None
    found = {}
    for place in {*model.facts.config.spotted.values()}:
        config, cache = model.branches[place].config, caches[place]
        about = [config.encoder, config.pool, config.max_tokens, config.window_s, cache.spans]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        digest.update(cache.values_Nx.data)
        found[place] = digest.hexdigest()
    return found


def _key(facts: Facts, name: str, read_AN: Tensor, sources: Mapping[int, str], clips: Sequence[Clip], seed: int) -> str:
    """Names a fit of an attribute by everything it depends on."""
    config = facts.config
    values = [aspect_value(name, clip) for clip in clips]
    about = [[clip.id, clip.group, clip.source, clip.domain] for clip in clips]
    probes = [FORMAT, FOLDS, UNKNOWN_SHARE, STEPS, CLIPS, LR, WEIGHT_DECAY, DROPOUT, NONE_SHARE, seed]
    probes += [NEIGHBOURS, SPOTTER_STEPS, SPOTTER_CLIPS, SPOTTER_STD]
    ways = [
        name,
        facts.attributes[name],
        name in config.open,
        name in facts.rows,
        sources.get(config.spotted.get(name, -1)),
    ]
    found = hashlib.sha256(json.dumps([probes, ways, about, values]).encode())
    if name in facts.rows:
        found.update(read_AN[:, facts.read_by(name)].numpy().data)
    return found.hexdigest()[:24]


def _fit_attribute(facts: Facts, name: str, ways: Sequence[_Listener], known: Sequence[Clip], seed: int) -> Tensor:
    """Fit the probes of an attribute; what others, to whom its group is new, hear of each clip: ``float32[A, V]``."""
    values = facts.attributes[name]
    logits_AV = torch.zeros(len(known), 1 + len(values))
    every_A = torch.ones(len(known), dtype=torch.bool)
    for listener in ways:
        listener.keep(listener.fit(every_A, _targets(name, values, known), seed))
    unknown_A = _unknown(name, known) if name in facts.config.open else ~every_A
    for by_value, told_A in ((False, ~unknown_A), (True, unknown_A)):
        fold_A = _value_folds(name, known) if by_value else _folds(name, known)
        for fold in range(FOLDS if bool(told_A.any()) else 0):
            own_A, others_A = told_A & (fold_A == fold), fold_A != fold
            others = [clip for clip, other in zip(known, others_A.tolist(), strict=True) if other]
            targets = _targets(name, values, others)
            heard = [way.logits(way.fit(others_A, targets, seed + 1 + fold), own_A) for way in ways]
            met = {NONE, *(aspect_value(name, clip) for clip in others)}
            unmet_V = torch.tensor([value not in met for value in (NONE, *values)])
            logits_AV[own_A] = together(heard).masked_fill(unmet_V, UNMET)
    if not any(aspect_value(name, clip) == NONE for clip in known):
        # Label smoothing alone would leave some chance that it is absent, and hide it where the probe is unsure.
        for listener in ways:
            listener.rule_out_none()
        logits_AV[:, 0] = UNMET
    return logits_AV


@dataclass(frozen=True)
class _Probe:
    """Weights and biases of a linear layer, on statistics or on tokens."""

    weight: Tensor
    bias: Tensor


class _Listener(Protocol):
    """One of the ways in which an attribute is heard: how a probe is fitted, what it hears, and where it is kept."""

    def fit(self, rows_A: Tensor, targets: _Targets, seed: int) -> _Probe:
        """A probe on the clips ``bool[A]``, which the targets are of."""

    def logits(self, probe: _Probe, rows_A: Tensor) -> Tensor:
        """What a probe hears of the clips ``bool[A]``: ``float32[., V]``."""

    def keep(self, probe: _Probe) -> None:
        """Make it the model's."""

    def rule_out_none(self) -> None:
        """Let the model's probe never hear that the attribute is absent."""


@dataclass(frozen=True)
class _OfStatistics:
    """Probes that read statistics of a recording."""

    facts: Facts
    name: str
    inputs_AN: Tensor
    """Of all clips, standardised, for every attribute."""

    def fit(self, rows_A: Tensor, targets: _Targets, seed: int) -> _Probe:
        return _fit(self._read(rows_A), targets, seed)

    def logits(self, probe: _Probe, rows_A: Tensor) -> Tensor:
        return self._read(rows_A) @ probe.weight.T + probe.bias

    def _read(self, rows_A: Tensor) -> Tensor:
        return self.inputs_AN[rows_A][:, self.facts.read_by(self.name)]

    def keep(self, probe: _Probe) -> None:
        start, end = self.facts.rows[self.name]
        self.facts.weight_GN[start:end, self.facts.read_by(self.name)] = probe.weight
        self.facts.bias_G[start:end] = probe.bias

    def rule_out_none(self) -> None:
        start, _ = self.facts.rows[self.name]
        self.facts.weight_GN[start], self.facts.bias_G[start] = 0.0, UNMET


@dataclass(frozen=True)
class _OfTokens:
    """Probes that read every token of a recording."""

    spotter: Spotter
    tokens_ATI: Tensor
    """Of all clips, float16, as they are."""
    mask_AT: Tensor

    def fit(self, rows_A: Tensor, targets: _Targets, seed: int) -> _Probe:
        return _fit_spotter(self, rows_A.nonzero().flatten(), targets, seed)

    def logits(self, probe: _Probe, rows_A: Tensor) -> Tensor:
        places = torch.split(rows_A.nonzero().flatten(), READ_TOGETHER)
        # Splitting nothing gives one part, an empty one.
        heard = [heard_anywhere(*self.read(own), probe.weight, probe.bias) for own in places if len(own)]
        return torch.cat([torch.zeros(0, len(probe.bias)), *heard]) @ self.spotter.words_VU.T

    def read(self, places_C: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised tokens ``float32[C, T, I]`` of some clips and their mask, no longer than the longest of them."""
        mask_CT = self.mask_AT[places_C]
        longest = max(int(mask_CT.sum(1).max()), 1)
        return self.spotter.standardised(self.tokens_ATI[places_C, :longest]), mask_CT[:, :longest]

    def keep(self, probe: _Probe) -> None:
        self.spotter.weight_US.copy_(probe.weight)
        self.spotter.bias_U.copy_(probe.bias)

    def rule_out_none(self) -> None:
        self.spotter.weight_US[0], self.spotter.bias_U[0] = 0.0, UNMET


def _listeners(
    model: PengiModel, caches: Sequence[FeatureCache], read_AN: Tensor, clips: Sequence[Clip], names: Sequence[str]
) -> dict[str, list[_Listener]]:
    """The ways in which each of these attributes is heard; spotters get the usual height of their tokens."""
    facts = model.facts
    assert facts is not None
    inputs_AN = facts.standardised(read_AN)
    found: dict[str, list[_Listener]] = {name: [] for name in names}
    for name in [name for name in names if name in facts.rows]:
        found[name].append(_OfStatistics(facts, name, inputs_AN))
    tokens: dict[int, tuple[Tensor, Tensor]] = {}
    for name in [name for name in names if name in facts.spotters]:
        spotter = facts.spotters[name]
        assert isinstance(spotter, Spotter)
        place = facts.config.branches[facts.spotted_at(name)]
        if place not in tokens:
            tokens[place] = _tokens(model.branches[place], caches[place], clips)
        tokens_ATI, mask_AT = tokens[place]
        drawn = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0))[:STANDARDISED_BY]
        heard_TI = tokens_ATI[drawn][mask_AT[drawn]].float()
        spotter.mean_I.copy_(heard_TI.mean(0))
        spotter.deviation_I.copy_(heard_TI.std(0).clamp(min=1e-3))
        found[name].append(_OfTokens(spotter, tokens_ATI, mask_AT))
    return found


@torch.no_grad()
def _tokens(branch: AudioBranch, cache: FeatureCache, clips: Sequence[Clip]) -> tuple[Tensor, Tensor]:
    """Tokens of clips, ``float16[A, T, I]``, and their mask."""
    most, width = branch.config.max_tokens, branch.encoder.dim
    tokens_ATI = torch.zeros(len(clips), most, width, dtype=torch.float16)
    mask_AT = torch.zeros(len(clips), most, dtype=torch.bool)
    for start in range(0, len(clips), READ_TOGETHER):
        ids = [clip.id for clip in clips[start : start + READ_TOGETHER]]
        found_CTI, mask_CT = limit_tokens(*branch.tokens(cache.batch(ids)), most)
        rows = slice(start, start + len(ids))
        tokens_ATI[rows, : found_CTI.shape[1]], mask_AT[rows, : mask_CT.shape[1]] = found_CTI.half(), mask_CT
    return tokens_ATI, mask_AT


@torch.no_grad()
def _read(model: PengiModel, caches: Sequence[FeatureCache], clips: Sequence[Clip]) -> Tensor:
    """Statistics of clips, ``float32[A, N]``."""
    assert model.facts is not None
    rows = []
    chosen = [(model.branches[place], caches[place]) for place in model.facts.config.branches]
    for start in range(0, len(clips), READ_TOGETHER):
        ids = [clip.id for clip in clips[start : start + READ_TOGETHER]]
        tokens = [branch.probed(branch.tokens(cache.batch(ids))) for branch, cache in chosen]
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


def _fit_spotter(heard: _OfTokens, places_A: Tensor, targets: _Targets, seed: int) -> _Probe:
    """A linear layer on tokens, by AdamW with dropout of its inputs, the same ones at every place of a recording."""
    generator = torch.Generator().manual_seed(seed)
    weight_US = (torch.randn(heard.spotter.weight_US.shape, generator=generator) * SPOTTER_STD).requires_grad_()
    bias_U = torch.zeros(len(weight_US), requires_grad=True)
    optimizer = torch.optim.AdamW([weight_US, bias_U], lr=LR, weight_decay=WEIGHT_DECAY)
    for step in range(SPOTTER_STEPS):
        optimizer.param_groups[0]["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / SPOTTER_STEPS))
        drawn = torch.multinomial(targets.chance_A, SPOTTER_CLIPS, replacement=True, generator=generator)
        tokens_CTI, mask_CT = heard.read(places_A[drawn])
        kept_C1I = torch.rand(SPOTTER_CLIPS, 1, tokens_CTI.shape[2], generator=generator) >= DROPOUT
        heard_CU = heard_anywhere(tokens_CTI * kept_C1I / (1 - DROPOUT), mask_CT, weight_US, bias_U)
        logits_CV = heard_CU @ heard.spotter.words_VU.T
        loss = functional.cross_entropy(logits_CV, targets.value_A[drawn], label_smoothing=LABEL_SMOOTHING)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return _Probe(weight_US.detach(), bias_U.detach())
