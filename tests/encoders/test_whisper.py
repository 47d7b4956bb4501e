"""The Whisper encoder: parity with transformers, independence of the batch, and sense on real recordings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder as ReferenceEncoder

from helpers import padded
from pengi import weights
from pengi.encoders.whisper import POSITION_HOP, SAMPLE_RATE, WhisperEncoder, WhisperShape

TINY_EN = weights.cached("whisper-tiny.en")
SECOND = SAMPLE_RATE


def tiny(seed: int = 0, stride: int = 8) -> WhisperEncoder:
    torch.manual_seed(seed)
    return WhisperEncoder.tiny(stride)


def tone(seconds: float, hertz: float = 440.0) -> Tensor:
    time_s = torch.arange(int(seconds * SECOND)) / SECOND
    return 0.3 * torch.sin(2 * torch.pi * hertz * time_s) * torch.rand(time_s.numel())


def reference(encoder: WhisperEncoder, mel_bands: int, positions: int, folder: Path) -> ReferenceEncoder:
    """The library's encoder with the same weights; ``folder`` gets both as files."""
    width, hidden = encoder.dim, encoder.layers[0].fc1.out_features
    config = WhisperConfig(
        num_mel_bins=mel_bands,
        d_model=width,
        encoder_layers=len(encoder.layers),
        encoder_attention_heads=encoder.layers[0].self_attn.heads,
        encoder_ffn_dim=hidden,
        max_source_positions=positions,
    )
    model = ReferenceEncoder(config).eval()
    model.load_state_dict(encoder.state_dict())
    config.save_pretrained(folder)
    tensors = {f"model.encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    save_file(tensors | {"model.decoder.layer_norm.weight": torch.ones(width)}, folder / "model.safetensors")
    return model


@pytest.mark.parametrize("seconds", [0.1, 3.0, 29.9])
def test_log_mel_is_whispers(seconds: float) -> None:
    torch.manual_seed(1)
    clip = tone(seconds)
    encoder = WhisperEncoder(WhisperShape(layers=1, width=8, heads=1, hidden=8))
    expected = WhisperFeatureExtractor()(clip.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
    window = functional.pad(clip, (0, 30 * SECOND - clip.numel()))[None]
    torch.testing.assert_close(encoder.log_mel(window), expected, rtol=0, atol=1e-4)


def test_log_mel_of_digital_silence_is_finite() -> None:
    assert torch.equal(tiny().log_mel(torch.zeros(1, SECOND)), torch.full((1, 16, 100), (-10.0 + 4.0) / 4.0))


def test_a_clip_of_full_length_is_encoded_as_in_transformers(tmp_path: Path) -> None:
    encoder = tiny(stride=1)
    model = reference(encoder, mel_bands=16, positions=600, folder=tmp_path)
    clip = tone(12.0)[None]
    with torch.no_grad():
        expected = model(encoder.log_mel(clip)).last_hidden_state
    tokens, mask = encoder(clip, torch.tensor([clip.shape[1]]))
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-5)
    assert mask.all()


def test_from_folder_reads_the_layout_of_transformers(tmp_path: Path) -> None:
    encoder = tiny(3)
    reference(encoder, mel_bands=16, positions=600, folder=tmp_path)
    clip = padded(tone(1.0))
    assert torch.equal(WhisperEncoder.from_folder(tmp_path)(*clip)[0], encoder(*clip)[0])


def test_tokens_are_means_over_the_stride() -> None:
    clip = padded(tone(2.0))
    fine, _ = tiny(stride=1)(*clip)
    coarse, mask = tiny(stride=4)(*clip)
    assert coarse.shape == (1, 25, 16)
    assert mask.all()
    torch.testing.assert_close(coarse, fine.unflatten(1, (25, 4)).mean(2), rtol=0, atol=1e-6)
    assert tiny(stride=4).token_s == pytest.approx(0.08)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 3 * SECOND), min_size=1, max_size=4), st.sampled_from([1, 5, 8, 25]))
def test_a_clip_gives_the_same_alone_and_beside_others(lengths: list[int], stride: int) -> None:
    encoder = tiny(stride=stride)
    clips = [tone(3.0)[:length] for length in lengths]
    tokens, mask = encoder(*padded(*clips))
    assert mask.sum(1).tolist() == [-(-length // (stride * POSITION_HOP)) for length in lengths]
    assert not tokens[~mask].any()
    for row, clip in enumerate(clips):
        alone, _ = encoder(*padded(clip))
        torch.testing.assert_close(tokens[row][mask[row]], alone[0], rtol=0, atol=1e-5)


def test_padding_of_the_batch_tensor_does_not_matter() -> None:
    clip, lengths = padded(tone(1.3))
    expected, _ = tiny()(clip, lengths)
    longer, _ = tiny()(functional.pad(clip, (0, 5 * SECOND)), lengths)
    torch.testing.assert_close(longer, expected, rtol=0, atol=1e-6)


def test_the_last_token_of_a_full_window_counts_only_what_is_there() -> None:
    """600 positions are 24 whole strides of 25, but 85 and a part of 7."""
    clip = padded(tone(12.0))
    fine, _ = tiny(stride=1)(*clip)
    coarse, mask = tiny(stride=7)(*clip)
    assert mask.shape == (1, 86)
    torch.testing.assert_close(coarse[0, -1], fine[0, 595:].mean(0), rtol=0, atol=1e-6)


def test_longer_than_the_positions_is_an_assertion() -> None:
    with pytest.raises(AssertionError, match="Whisper encodes"):
        tiny()(*padded(torch.zeros(12 * SECOND + 1)))


def test_nothing_is_trained() -> None:
    encoder = tiny().train()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    clip = padded(tone(0.5))
    features, mask = encoder.features(*clip)
    assert torch.equal(encoder.tokens(features, mask), encoder(*clip)[0])


@pytest.fixture(scope="module")
def stock() -> WhisperEncoder:
    if TINY_EN is None:
        pytest.skip("whisper-tiny.en is not in the cache")
    return WhisperEncoder.from_folder(TINY_EN)


def spoken_digits(data: Path, split: str, words: tuple[str, ...], each: int) -> tuple[list[str], list[Tensor]]:
    rows = [json.loads(line) for line in (data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["domain"] == "digit" and row["split"] == split]
    chosen = [row for word in words for row in [row for row in rows if row["attributes"]["digit"] == word][:each]]
    clips = []
    for row in chosen:
        samples, rate = soundfile.read(data / row["audio"], dtype="float32")
        clips.append(torch.from_numpy(soxr.resample(samples, rate, SAMPLE_RATE)))
    return [row["attributes"]["digit"] for row in chosen], clips


def test_a_real_clip_is_encoded_as_in_transformers(stock: WhisperEncoder, shared_data: Path, tmp_path: Path) -> None:
    _, (clip,) = spoken_digits(shared_data, "val", ("seven",), 1)
    model = reference(stock, mel_bands=80, positions=1500, folder=tmp_path)
    features = WhisperFeatureExtractor()(clip.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
    with torch.no_grad():
        expected = functional.avg_pool1d(model(features).last_hidden_state.mT, 8, ceil_mode=True).mT
    tokens, mask = stock(functional.pad(clip, (0, 30 * SECOND - clip.numel()))[None], torch.tensor([30 * SECOND]))
    assert mask.shape == (1, 188)
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-4)


def test_spoken_digits_are_told_apart(stock: WhisperEncoder, shared_data: Path) -> None:
    words = ("two", "six", "nine")
    trained, clips = spoken_digits(shared_data, "train", words, 10)
    asked, questions = spoken_digits(shared_data, "val", words, 4)

    def embed(clips: list[Tensor]) -> Tensor:
        tokens, mask = stock(*padded(*clips))
        return functional.normalize(tokens.sum(1) / mask.sum(1, keepdim=True), dim=-1)

    known = embed(clips)
    mean = known.mean(0)
    centroids = torch.stack([known[[word == w for w in trained]].mean(0) for word in words]) - mean
    nearest = functional.normalize(embed(questions) - mean, dim=-1) @ functional.normalize(centroids, dim=-1).T
    right = [words[choice] == word for choice, word in zip(nearest.argmax(1).tolist(), asked, strict=True)]
    assert sum(right) / len(right) >= 0.75
