"""HTS-AT: parity with transformers and with a plain recomputation, the order of its tokens, clips of any length."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers import official as official_format
from helpers import official_reference as reference
from helpers import padded
from pengi.audio.augment import spec_augment
from pengi.encoders import ENCODERS, encoder_spec
from pengi.encoders import htsat as module
from pengi.encoders.htsat import TINY, HtsatEncoder, HtsatShape, mel_filterbank

CLIP = TINY.clip_samples
SHAPE = HtsatShape()


@pytest.fixture(scope="module")
def encoder() -> HtsatEncoder:
    tiny = HtsatEncoder.tiny().eval()
    # Statistics of dB values, so that the spectrogram matters to what comes out.
    tiny.swin.batch_norm.running_mean.fill_(-20.0)
    tiny.swin.batch_norm.running_var.fill_(100.0)
    return tiny


def noise(samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def test_sizes_are_those_of_the_paper() -> None:
    assert (SHAPE.frames, SHAPE.pieces, SHAPE.map_side, SHAPE.dim) == (965, 4, 8, 768)
    full = HtsatEncoder()
    assert (full.sample_rate, full.dim, full.token_count) == (44_100, 768, 64)
    assert full.token_s * 64 == pytest.approx(7.0)


def test_filterbank_has_equal_areas_between_its_edges() -> None:
    """Slaney's normalisation: every triangle has the area of one band of 1 Hz; edges at 32 kHz, whatever the audio."""
    filters = mel_filterbank(SHAPE)
    bin_hz = SHAPE.mel_rate / SHAPE.n_fft
    wide = filters[:, -20:]  # narrow bands are a few bins wide, too few for a smooth area
    torch.testing.assert_close(wide.sum(0) * bin_hz, torch.ones(20), rtol=0.02, atol=0)
    heard = filters.sum(1).nonzero()[:, 0] * bin_hz
    assert heard[0] >= SHAPE.low_hz
    assert heard[-1] <= SHAPE.high_hz


@pytest.mark.parametrize("samples", [CLIP, CLIP - 77])
def test_log_mel_is_that_of_the_official_kernels(encoder: HtsatEncoder, samples: int) -> None:
    clip = noise(samples)[None]
    expected = reference.log_mel(official_format.tiny_state_dict(), clip, TINY.hop)
    # Quiet bins of a loud frame: the FFT and the sums of the kernels round differently.
    torch.testing.assert_close(encoder.log_mel(clip), expected, rtol=0, atol=1e-3)


def test_silence_is_at_the_floor(encoder: HtsatEncoder) -> None:
    assert torch.equal(encoder.log_mel(torch.zeros(1, CLIP)), torch.full((1, TINY.frames, 16), -100.0))


@torch.no_grad()
def test_the_mean_of_the_tokens_is_what_transformers_pools(encoder: HtsatEncoder) -> None:
    features, mask = encoder.features(*padded(noise(CLIP), noise(CLIP, 1)))
    spectrogram = features.flatten(1, 2)[:, : TINY.frames]
    expected = encoder.swin(spectrogram[:, None]).pooler_output
    torch.testing.assert_close(encoder.tokens(features, mask).mean(1), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_tokens_leave_in_the_order_of_time(encoder: HtsatEncoder) -> None:
    """Of the final map, numbered row by row, each piece's rows are read column by column."""
    shape = HtsatShape()
    full_map = torch.arange(64.0).view(1, 64, 1)
    order = HtsatEncoder._in_time(_shaped(shape), full_map).flatten().tolist()
    assert order[:6] == [0, 8, 1, 9, 2, 10]  # both frequencies of the first times
    assert order[14:18] == [7, 15, 16, 24]  # from the first piece to the second


def _shaped(shape: HtsatShape) -> HtsatEncoder:
    bare = HtsatEncoder.__new__(HtsatEncoder)
    torch.nn.Module.__init__(bare)
    bare.shape = shape
    return bare


@torch.no_grad()
def test_a_sound_changes_the_tokens_of_its_own_time_most(encoder: HtsatEncoder) -> None:
    quiet, loud = 1e-3 * noise(CLIP), 1e-3 * noise(CLIP)
    loud[CLIP * 3 // 4 :] += noise(CLIP // 4, 1)
    tokens, _ = encoder(*padded(quiet, loud))
    change = (tokens[0] - tokens[1]).norm(dim=-1)
    assert change[13:].mean() > 2 * change[:10].mean()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 2 * CLIP), min_size=1, max_size=4))
def test_a_clip_gives_the_same_alone_and_beside_others(lengths: list[int]) -> None:
    tiny = HtsatEncoder.tiny().eval()
    clips = [noise(length, seed) for seed, length in enumerate(lengths)]
    with torch.no_grad():
        tokens, mask = tiny(*padded(*clips))
        assert tokens.shape == (len(clips), 16, 32)
        assert mask.all()
        for row, clip in enumerate(clips):
            torch.testing.assert_close(tokens[row], tiny(*padded(clip))[0][0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_short_clip_is_repeated_and_a_long_one_cut(encoder: HtsatEncoder) -> None:
    short, long = noise(CLIP // 3), noise(CLIP + 5_000)
    repeated = torch.cat([short] * 4)[:CLIP]
    assert torch.equal(encoder(*padded(short))[0], encoder(*padded(repeated))[0])
    assert torch.equal(encoder(*padded(long))[0], encoder(*padded(long[:CLIP]))[0])


def test_spec_augment_sees_the_normalised_spectrogram_in_training_only(encoder: HtsatEncoder) -> None:
    seen: list[Tensor] = []
    generator = torch.Generator().manual_seed(0)

    def augment(spectrogram: Tensor) -> Tensor:
        seen.append(spectrogram)
        return spec_augment(spectrogram, generator)

    features, mask = encoder.features(*padded(noise(CLIP)))
    plain = encoder.tokens(features, mask)
    assert torch.equal(encoder(*padded(noise(CLIP)))[0], plain)
    masked = encoder.tokens(features, mask, augment)
    torch.testing.assert_close(seen[0], (features.flatten(1, 2)[:, : TINY.frames] + 20.0) / 10.0, rtol=0, atol=1e-4)
    assert not torch.allclose(masked, plain)


def test_gradients_reach_every_layer_that_makes_tokens() -> None:
    tiny = HtsatEncoder.tiny().train()
    features, mask = tiny.features(*padded(noise(CLIP), noise(CLIP, 1)))
    tiny.tokens(features, mask).square().sum().backward()
    without = {name.split(".")[0] for name, parameter in tiny.named_parameters() if parameter.grad is None}
    assert without == {"tscam_conv", "head"}


def test_bicubic_runs_on_the_processor_where_the_device_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for Apple's MPS: a tensor of another device is moved for this one operation and back."""
    calls: list[str] = []

    class Elsewhere:
        """As much of a tensor on MPS as is asked for."""

        device = torch.device("mps")

        def __init__(self, values: Tensor) -> None:
            self.values = values

        def cpu(self) -> Tensor:
            calls.append("to the processor")
            return self.values

    back: Callable[..., Tensor] = torch.Tensor.to

    def to(self: Tensor, device: torch.device) -> Tensor:
        calls.append(f"to {device}")
        return back(self, "cpu")

    monkeypatch.setattr(torch.Tensor, "to", to)
    resized = module._bicubic(Elsewhere(torch.rand(1, 1, 5, 4)), (8, 4))  # type: ignore[arg-type]
    assert resized.shape == (1, 1, 8, 4)
    assert calls == ["to the processor", "to mps"]


def test_both_sizes_are_registered() -> None:
    assert {"htsat-tiny", "htsat-tiny-random"} <= set(ENCODERS)
    assert encoder_spec("htsat-tiny").weights is None  # a checkpoint brings them
