"""Transcripts: the decoder keeps the contract of a step model, guards drop invented text, real speech is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import Tokenizer, models
from transformers import WhisperConfig, WhisperForConditionalGeneration
from typer.testing import CliRunner

from pengi import weights
from pengi.audio.decode import load
from pengi.cli import app
from pengi.conditioning.transcript import Transcriber, audible_s, without_loops
from pengi.conditioning.whisper_decoder import DecoderShape, WhisperDecoder
from pengi.conditioning.word_times import MAX_LINE
from pengi.decoding import DecodeOptions, Hypothesis, generate

NEEDED = ("whisper-tiny.en", "yamnet")
SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>")


@pytest.fixture(scope="module")
def stock() -> WhisperForConditionalGeneration:
    """A tiny Whisper with random weights."""
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=12,
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=24,
        max_source_positions=10,
        max_target_positions=20,
        num_mel_bins=8,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=1,
    )
    return WhisperForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def decoder(stock: WhisperForConditionalGeneration) -> WhisperDecoder:
    """Its decoder, which suppresses token 9."""
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *"abcdefghi"))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    shape = DecoderShape(vocabulary=12, width=16, layers=2, heads=2, hidden=24, positions=20)
    heads = ((0, 1), (1, 0))
    decoder = WhisperDecoder(shape, tokenizer, suppressed=[9], suppressed_first=[0], alignment_heads=heads).eval()
    decoder.load_state_dict(stock.get_decoder().state_dict())
    return decoder


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    if any(weights.cached(name) is None for name in NEEDED):
        pytest.skip("whisper-tiny.en and yamnet are not in the cache; fetch them with: pengi pull whisper-tiny.en")
    return Transcriber.from_pretrained()


def clip(shared_data: Path, source: str, **wanted: str) -> tuple[np.ndarray, dict[str, str]]:
    """The first recording of a source with these attributes, and all of its attributes."""
    for line in (shared_data / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["source"] == source and wanted.items() <= row["attributes"].items():
            return load(shared_data / row["audio"], 16_000), row["attributes"]
    raise AssertionError(f"no clip of {source} with {wanted}")


@torch.inference_mode()
def test_a_step_after_a_prefill_gives_the_logits_of_the_transformers_library(
    stock: WhisperForConditionalGeneration, decoder: WhisperDecoder
) -> None:
    audio = torch.randn(2, 10, 16)
    first, state = decoder.prefill(audio, torch.ones(2, 10, dtype=torch.bool))
    two, state = decoder.step(torch.tensor([[4, 5], [6, 7]]), state)
    one, _ = decoder.step(torch.tensor([[8], [10]]), state)
    ids = torch.tensor([[1, 2, 4, 5, 8], [1, 2, 6, 7, 10]])
    expected = stock(encoder_outputs=(audio,), decoder_input_ids=ids).logits
    kept = [token for token in range(12) if token != 9]
    torch.testing.assert_close(torch.cat([two, one], 1)[..., kept], expected[:, 2:, kept], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(first[:, kept[1:]], expected[:, 1, kept[1:]], rtol=1e-4, atol=1e-4)
    assert torch.isinf(one[..., 9]).all()


def test_a_state_can_be_stepped_from_and_selected_from_again(decoder: WhisperDecoder) -> None:
    audio = torch.randn(2, 10, 16)
    _, state = decoder.prefill(audio, torch.ones(2, 10, dtype=torch.bool))
    first, _ = decoder.step(torch.tensor([[4], [5]]), state)
    swapped, _ = decoder.step(torch.tensor([[5], [4]]), decoder.select(state, torch.tensor([1, 0])))
    again, _ = decoder.step(torch.tensor([[4], [5]]), state)
    torch.testing.assert_close(first, again)
    torch.testing.assert_close(first, swapped.flip(0))


def test_a_chunk_gives_the_same_text_alone_and_in_a_batch(decoder: WhisperDecoder) -> None:
    audio = torch.randn(3, 10, 16)
    options = DecodeOptions(beams=1, max_tokens=8)
    together = generate(decoder, audio, torch.ones(3, 10, dtype=torch.bool), options)
    alone = [generate(decoder, row[None], torch.ones(1, 10, dtype=torch.bool), options)[0] for row in audio]
    assert [best.tokens for best, *_ in together] == [best.tokens for best, *_ in alone]


@torch.inference_mode()
def test_the_attention_to_the_audio_is_that_of_the_transformers_library(
    stock: WhisperForConditionalGeneration, decoder: WhisperDecoder
) -> None:
    audio = torch.randn(1, 10, 16)
    found = decoder.attention(audio, [4, 5, 8])
    stock.set_attn_implementation("eager")
    ids = torch.tensor([[1, 2, 4, 5, 8]])
    expected = stock(encoder_outputs=(audio,), decoder_input_ids=ids, output_attentions=True).cross_attentions
    wanted = torch.stack([expected[0][0, 1], expected[1][0, 0]])[:, 1:]
    torch.testing.assert_close(found.softmax(2), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Third. Third. Third. Third.", "Third."),
        ("I go, and then I go, and then I go, and", "I go, and then"),
        ("Well, yes yes yes", "Well, yes"),
        ("no no", "no no"),
        ("one two three one two three", "one two three one two three"),
        ("", ""),
    ],
)
def test_a_loop_is_cut_to_its_first_round(text: str, kept: str) -> None:
    assert without_loops(text) == kept


def test_a_word_is_kept_once_if_the_sound_is_too_short_for_two() -> None:
    assert without_loops("Left left", audible_s=0.3) == "Left"
    assert without_loops("No, no.", audible_s=0.6) == "No, no."
    assert without_loops("turn left", audible_s=0.3) == "turn left"
    noise_S = np.random.default_rng(0).normal(0.0, 0.1, 16_000).astype(np.float32)
    noise_S[4_800:] *= 1e-3
    assert audible_s(noise_S) == pytest.approx(0.3)
    assert audible_s(np.zeros(1_600, np.float32)) == audible_s(np.zeros(0, np.float32)) == 0.0


@pytest.mark.parametrize(
    ("hypothesis", "why"),
    [
        (Hypothesis((3, 4), (-2.0, -2.0, -2.0), True), "the decoder is unsure"),
        (Hypothesis((*range(3, 12), *range(4, 12, 2), 3, 5, 7), (-0.1,) * 17, True), "nobody speaks that fast"),
        (Hypothesis((3, 4, 5, 6, 7), (-0.1,) * 5, False), "it never ends"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_text_that_nobody_said_is_dropped(decoder: WhisperDecoder, hypothesis: Hypothesis, why: str) -> None:
    guarded = Transcriber.__new__(Transcriber)
    guarded.decoder = decoder
    assert guarded._text(hypothesis, duration_s=0.4, audible_s=0.4) == "", why
    assert guarded._text(Hypothesis((3, 4), (-0.1,) * 3, True), duration_s=0.4, audible_s=0.4) == "a b"


def test_encoders_that_are_loaded_already_are_used(transcriber: Transcriber) -> None:
    loaded = {"whisper-tiny.en": transcriber.encoder, "yamnet": transcriber.tagger.encoder}
    again = Transcriber.from_pretrained("cpu", loaded)
    assert again.encoder is transcriber.encoder
    assert again.tagger.encoder is transcriber.tagger.encoder


def test_a_read_sentence_is_written_down(transcriber: Transcriber, shared_data: Path) -> None:
    samples, attributes = clip(shared_data, "ljspeech")
    found = transcriber.transcribe((samples, 16_000))
    said, written = (
        {*text.lower().replace(",", "").strip(".").split()} for text in (attributes["transcript"], found.text)
    )
    assert len(said & written) > 0.9 * len(said)
    assert found.duration_s == pytest.approx(len(samples) / 16_000)
    words = [word for segment in found.segments for word in segment.words]
    assert " ".join(word.text for word in words) == found.text
    times = [time for word in words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert 0.0 <= times[0] < 0.5
    assert found.duration_s - 0.5 < times[-1] <= found.duration_s + 0.02
    for segment in found.segments:
        assert len(segment.text) <= MAX_LINE
        assert (segment.start_s, segment.end_s) == (segment.words[0].start_s, segment.words[-1].end_s)


def test_pauses_are_in_no_line(transcriber: Transcriber, shared_data: Path) -> None:
    samples, _ = clip(shared_data, "librispeech", gender="male")
    samples, pause = samples[:48_000], np.zeros(24_000, np.float32)
    found = transcriber.transcribe((np.concatenate([pause, samples, pause, samples, pause]), 16_000)).segments
    said = [(1.5, 4.5), (6.0, 9.0)]
    assert len(found) >= 2
    for line in found:
        assert any(start - 0.5 < line.start_s < line.end_s < end + 0.75 for start, end in said), line


def test_where_nobody_speaks_nothing_is_written(transcriber: Transcriber, shared_data: Path) -> None:
    for source in ("philharmonia", "wesnoth-music", "esc10"):
        samples, _ = clip(shared_data, source)
        assert transcriber.transcribe((samples, 16_000)).segments == (), source
    assert transcriber.transcribe((np.zeros(16_000, np.float32), 16_000)).text == ""


def test_speech_in_a_long_recording_has_its_time(transcriber: Transcriber, shared_data: Path) -> None:
    samples, _ = clip(shared_data, "ljspeech")
    music, _ = clip(shared_data, "wesnoth-music")
    gap = np.tile(music, 4)[: 30 * 16_000]
    found = transcriber.transcribe((np.concatenate([gap, samples, gap]), 16_000))
    start_s, end_s = 30.0, 30.0 + len(samples) / 16_000
    assert found.segments, "the speech between the music is found"
    assert all(segment.end_s > start_s - 1 and segment.start_s < end_s + 1 for segment in found.segments)


def test_the_command_writes_down_speech_and_goes_on_behind_a_bad_file(
    transcriber: Transcriber, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Transcriber, "from_pretrained", lambda device, encoders=None: transcriber)
    samples, _ = clip(shared_data, "ljspeech")
    soundfile.write(tmp_path / "read.wav", samples, 16_000)
    result = CliRunner().invoke(
        app, ["transcribe", str(tmp_path / "missing.wav"), str(tmp_path / "read.wav"), "--json"]
    )
    missing, found = json.loads(result.stdout)
    assert result.exit_code == 2
    assert "there is no file" in missing["error"]
    assert found["text"] == " ".join(segment["text"] for segment in found["segments"]) != ""
