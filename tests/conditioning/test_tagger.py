"""Frames of several encoders side by side, and what is detected in them when."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pengi.conditioning.evidence import MAYBE
from pengi.conditioning.pooling import log_mean_exp
from pengi.conditioning.tagger import RARE_SHARE, Tagger, frames, runs_above, seconds_of
from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.encoders.base import Masked


def masked(*rows: Tensor) -> Masked:
    values = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=99.0)
    return values, torch.arange(values.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]


def test_a_frame_has_the_mean_of_the_other_encoders_frames_of_its_time() -> None:
    """Four frames of 0.96 s, one every 0.48 s: 2.4 s; ten tokens of another encoder in the same time."""
    other_UI = torch.arange(10.0)[:, None]
    values_BTD, mask_BT = frames([masked(torch.zeros(4, 2)), masked(other_UI)])
    assert mask_BT.tolist() == [[True] * 4]
    assert values_BTD[0, :, 2].tolist() == [1.5, 3.5, 5.5, 7.5]


@pytest.mark.parametrize("tokens", [1, 3, 7, 40])
def test_frames_do_not_depend_on_the_recordings_beside_them(tokens: int) -> None:
    torch.manual_seed(0)
    first, other = torch.randn(3, 2), torch.randn(tokens, 5)
    alone, _ = frames([masked(first), masked(other)])
    together, mask_BT = frames([masked(first, torch.randn(8, 2)), masked(other, torch.randn(20, 5))])
    assert together.shape == (2, 8, 7)
    torch.testing.assert_close(together[0, :3], alone[0])
    assert not together[0, 3:].any()
    assert mask_BT.sum(1).tolist() == [3, 8]


def test_an_encoder_without_a_token_leaves_zeros() -> None:
    nothing = torch.zeros(1, 4, 3), torch.zeros(1, 4, dtype=torch.bool)
    values_BTD, _ = frames([masked(torch.ones(2, 1)), nothing])
    assert values_BTD[0].tolist() == [[1.0, 0.0, 0.0, 0.0]] * 2


def test_a_short_sound_in_a_long_recording_counts() -> None:
    scores_BTK = torch.full((1, 20, 1), -6.0)
    scores_BTK[0, 3] = 6.0
    (pooled,) = log_mean_exp(scores_BTK, torch.ones(1, 20, dtype=torch.bool))[0]
    assert pooled == pytest.approx(6.0 - torch.log(torch.tensor(20.0)).item(), abs=1e-3)


def test_probabilities_are_calibrated_and_of_real_frames_only() -> None:
    tagger = Tagger(Vocabulary((Tag("a", "sound"), Tag("b", "sound"))), [1])
    tagger.head.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    tagger.head.bias.zero_()
    tagger.stock.weight.zero_()
    tagger.scale_K.copy_(torch.tensor([2.0, 1.0]))
    tagger.shift_K.copy_(torch.tensor([-1.0, 0.0]))
    scores_BTK, mask_BT = tagger([masked(torch.full((2, 1), 1.5), torch.full((5, 1), 1.5))])
    expected = torch.tensor([2.0, -1.5]).sigmoid()
    torch.testing.assert_close(tagger.probabilities(scores_BTK, mask_BT), expected.expand(2, 2))
    assert not any(parameter.requires_grad for parameter in tagger.parameters())


@pytest.mark.parametrize(
    ("frames_above", "duration_s", "spans"),
    [
        ([], 5.0, []),
        ([0], 5.0, [(0.0, 0.75)]),
        ([2, 3, 7], 5.0, [(1.25, 2.25), (3.75, 4.25)]),
        ([2, 4], 5.0, [(1.25, 2.75)]),  # frames overlap by half
        ([9], 5.5, [(4.75, 5.5)]),
        (range(10), 5.5, [(0.0, 5.5)]),
        ([0], 0.3, [(0.0, 0.3)]),
        ([8], 4.0, [(4.0, 4.0)]),  # behind the end
    ],
)
def test_runs_of_frames_are_seconds_within_the_recording(
    frames_above: list[int], duration_s: float, spans: list[tuple[float, float]]
) -> None:
    probability_TK = torch.zeros(10, 2)
    probability_TK[list(frames_above), 1] = 0.6
    runs_R3 = runs_above(probability_TK, torch.tensor([0.5, 0.5]))
    assert set(runs_R3[:, 0].tolist()) <= {1}
    assert seconds_of(runs_R3, 10, 0.5, duration_s).tolist() == [list(span) for span in spans]


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_very_short_recordings_have_runs_too(frames: int) -> None:
    runs_R3 = runs_above(torch.full((frames, 1), 0.6), torch.tensor([0.5]))
    assert runs_R3.tolist() == ([[0, 0, frames - 1]] if frames else [])


def test_kinds_of_one_class_share_its_probability() -> None:
    kinds = [Tag(name, "sound", (), "Animal") for name in ("hyena calling", "camel calling")]
    tagger = Tagger(Vocabulary((*kinds, Tag("rain", "sound", (), "Rain"))), [1])
    found_BK = tagger.probability(torch.tensor([[2.0, 2.0, 2.0], [2.0, -8.0, 2.0]]))
    whole = torch.tensor(2.0).sigmoid().item()
    assert found_BK[0].tolist() == pytest.approx([whole / 2, whole / 2, whole], abs=1e-4)
    assert found_BK[1].tolist() == pytest.approx([whole, 0.0, whole], abs=1e-3)


def test_a_class_stands_for_its_kinds_that_have_no_tag() -> None:
    tags = [Tag("raccoon chattering", "sound", (), "Wild animals"), Tag("wild animals", "sound", (), "Wild animals")]
    tagger = Tagger(Vocabulary(tuple(tags)), [1])
    frog_K, raccoon_K = tagger.probability(torch.tensor([[5.0, 9.0], [9.0, 5.0]]))
    assert frog_K.tolist() == pytest.approx([0.0, 1.0], abs=0.03)
    assert raccoon_K.tolist() == pytest.approx([1.0, 1.0], abs=0.03)


def test_a_rare_kind_has_a_small_share_of_its_class_whatever_its_score() -> None:
    tags = [Tag("hyena calling", "sound", (), "Animal", is_rare=True), Tag("animal", "sound", (), "Animal")]
    tagger = Tagger(Vocabulary(tuple(tags)), [1])
    found_BK = tagger.probability(torch.tensor([[9.0, 9.0], [9.0, -9.0]]))
    assert found_BK.tolist() == [pytest.approx([RARE_SHARE, 1.0], abs=1e-3), pytest.approx([RARE_SHARE, 0.0], abs=1e-3)]
    assert RARE_SHARE < MAYBE


def test_kinds_of_an_improbable_class_stay_improbable() -> None:
    """However much higher the scores of another class are."""
    kinds = [Tag(f"{name} {number}", "sound", (), name) for name in ("Animal", "Rain") for number in (1, 2)]
    tagger = Tagger(Vocabulary(tuple(kinds)), [1])
    found_K = tagger.probability(torch.tensor([100.0, 90.0, -100.0, -101.0]))
    assert found_K.tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0], abs=1e-4)
