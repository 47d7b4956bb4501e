"""What is done to audio tokens during training, between encoder and mapper. Seeded by step.

Shape suffixes: B clips, R clips of a part of the batch, T tokens, D features, C classes, P prefix embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pengi.data.loader import SOUND_DOMAINS
from pengi.data.manifest import Clip
from pengi.data.pseudo import ClassDirections
from pengi.data.tasks import SPEECH_DOMAINS
from pengi.encoders import Role
from pengi.mapper import UNHEARD
from pengi.model import Masked

_FACTS_SEED = 2**50  # far from the seeds of any step


@dataclass(frozen=True)
class TokenEdits:
    """Token dropout, branch dropout and class directions for one batch.

    Branch dropout hides a whole branch from a clip, so that each learns to answer what it is best at on its own: with
    ``branch_dropout`` from a clip of speech all branches but the speech encoder's, and from any other clip the speech
    encoder's; with ``sound_dropout`` from a clip of a sound event the sound encoder's, where another tells its classes
    in words.

    A clip moved to a class is heard by the branch that was moved and no other, since the others still describe the clip
    it was made from. That is the branch of words if there is one, which then reads what stock YAMNet's classifier makes
    of the moved tokens, else the sound encoder's.

    Of classes that are ``hidden`` the branch of words tells nothing: so it tells other lists of the same clip, and what
    is right is to be found by the shares.

    With ``facts_dropout`` a clip is not told what probes hear of it, nor how much is heard of what a prompt mentions,
    and never where it was moved.

    Everything is drawn for the whole batch, so that a part of it (``rows``) is edited alone as it is within the whole.
    """

    clips: Sequence[Clip]
    moved_to: Sequence[int | None]
    directions: ClassDirections | None
    roles: Sequence[Role]
    token_dropout: float
    branch_dropout: float
    sound_dropout: float
    seed: int
    facts_dropout: float = 0.0
    hidden: Sequence[frozenset[int]] = ()
    """For each clip the classes that the branch ``tells`` does not tell; none of any clip if empty."""
    tells: int | None = None
    """The branch whose mapper is one of words."""
    rows: Sequence[int] | None = None
    """Places in the batch of the clips whose tokens are given; all if none."""

    def __call__(self, tokens: list[Masked]) -> list[Masked]:
        generator = self._generator()
        tokens = [(values, mask.clone()) for values, mask in tokens]
        tokens = self._move(tokens, generator)
        self._hide_classes(tokens)
        for place, hidden in enumerate(self._hidden_rows(generator)):
            for branch in hidden:
                tokens[branch][1][place] = False
        return [(values, self._drop_tokens(mask, generator)) for values, mask in tokens]

    def told(self) -> Tensor:
        """Which of the given clips are told facts and what is heard of a prompt's words, ``bool[R]``."""
        # A generator of its own, so that the other edits are the same with and without facts.
        drawn_B = torch.rand(len(self.clips), generator=torch.Generator().manual_seed(self.seed + _FACTS_SEED))
        return torch.tensor(
            [self.moved_to[row] is None and float(drawn_B[row]) >= self.facts_dropout for row in self._given]
        )

    def hide_facts(self, told: Masked) -> Masked:
        """The prefix that tells facts, without the rows that are not told any."""
        values_RPD, mask_RP = told
        return values_RPD, mask_RP & self.told()[:, None].to(mask_RP.device)

    def heard(self) -> list[list[int]]:
        """For each branch the places, among the given clips, of those it hears; known before there are tokens."""
        generator = self._generator()
        if self._moves:
            for index in self.moved_to:
                if index is not None:
                    self._skip_move(index, generator)
        hidden = self._hidden_rows(generator)
        return [
            [place for place, branches in enumerate(hidden) if branch not in branches]
            for branch in range(len(self.roles))
        ]

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    @property
    def _given(self) -> Sequence[int]:
        return range(len(self.clips)) if self.rows is None else self.rows

    @property
    def _moves(self) -> bool:
        return self.directions is not None and any(index is not None for index in self.moved_to)

    def _move(self, tokens: list[Masked], generator: torch.Generator) -> list[Masked]:
        if not self._moves:
            return tokens
        assert self.directions is not None
        place_of = {row: place for place, row in enumerate(self._given)}
        sound = self.roles.index("sound")
        values_RTD, mask_RT = tokens[sound]
        sounds = list(values_RTD)
        words = self.roles.index("words") if "words" in self.roles else None
        told = [] if words is None else list(tokens[words][0])
        for row, index in enumerate(self.moved_to):
            if index is None:
                continue
            if row not in place_of:
                self._skip_move(index, generator)
                continue
            place = place_of[row]
            real_TD = values_RTD[place, mask_RT[place]].detach()
            moved_TD = self.directions.draw(real_TD, index, generator)
            if words is not None:
                # Both branches cut a clip into the same patches.
                told[place] = told[place].masked_scatter(
                    tokens[words][1][place, :, None],
                    told[place][tokens[words][1][place]] + self.directions.shift(real_TD, moved_TD),
                )
            else:
                sounds[place] = values_RTD[place].detach().masked_scatter(mask_RT[place, :, None], moved_TD)
        edited = list(tokens)
        edited[sound] = (torch.stack(sounds), mask_RT)
        if words is not None:
            edited[words] = (torch.stack(told), tokens[words][1])
        return edited

    def _hide_classes(self, tokens: list[Masked]) -> None:
        """Make classes unheard, in a copy of the tokens of the branch of words."""
        if not any(self.hidden):
            return
        assert self.tells is not None, "classes are hidden but no branch tells any"
        values_RTC, mask_RT = tokens[self.tells]
        values_RTC = values_RTC.clone()
        for place, row in enumerate(self._given):
            values_RTC[place, :, sorted(self.hidden[row])] = UNHEARD
        tokens[self.tells] = (values_RTC, mask_RT)

    def _skip_move(self, index: int, generator: torch.Generator) -> None:
        """Draw what moving a clip draws, which is the same for any number of tokens."""
        assert self.directions is not None
        self.directions.draw(torch.zeros_like(self.directions.weight_CD[:1]), index, generator)

    def _hidden_rows(self, generator: torch.Generator) -> list[list[int]]:
        """For each of the given clips the branches that do not hear it."""
        hidden = [self._hidden(row, generator) for row in range(len(self.clips))]
        return [hidden[row] for row in self._given]

    def _hidden(self, row: int, generator: torch.Generator) -> list[int]:
        """The branches that do not hear a clip."""
        by_branch, by_sound = torch.rand(2, generator=generator).tolist()
        domain = self.clips[row].domain
        hidden: set[Role] = set()
        if self.moved_to[row] is not None:
            hidden = {"sound", "speech"} if "words" in self.roles else {"speech"}
        elif domain in SPEECH_DOMAINS:
            if by_branch < self.branch_dropout and "speech" in self.roles:
                hidden = {"sound", "words"}
        else:
            if by_branch < self.branch_dropout and self.roles != ("speech",):
                hidden.add("speech")
            if by_sound < self.sound_dropout and domain in SOUND_DOMAINS and "words" in self.roles:
                hidden.add("sound")
        return [branch for branch, role in enumerate(self.roles) if role in hidden]

    def _drop_tokens(self, mask_RT: Tensor, generator: torch.Generator) -> Tensor:
        """Hide tokens at random; a row never loses its last token."""
        drawn_BT = torch.rand((len(self.clips), mask_RT.shape[1]), generator=generator)
        kept_RT = mask_RT & (drawn_BT[list(self._given)] >= self.token_dropout).to(mask_RT.device)
        return torch.where(kept_RT.any(1, keepdim=True), kept_RT, mask_RT)


def leave_to_words(mapped: Sequence[Masked], clips: Sequence[Clip], roles: Sequence[Role]) -> list[Masked]:
    """Where one branch tells sound events in words, the sound encoder's does not learn to name them as well.

    It would do so perfectly for the few clips it is trained on, so that the language model would come to trust it and
    not the words, which hold for sounds that no clip was there for. So its prefix takes no gradient from such clips.
    """
    if "words" not in roles:
        return list(mapped)
    event_B11 = torch.tensor([clip.domain in SOUND_DOMAINS for clip in clips])[:, None, None]
    return [
        (torch.where(event_B11.to(prefix.device), prefix.detach(), prefix), mask) if role == "sound" else (prefix, mask)
        for (prefix, mask), role in zip(mapped, roles, strict=True)
    ]
