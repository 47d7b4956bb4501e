"""The paper's models through the importer: golden values at full size, a plain recomputation in tiny, and refusals."""

from __future__ import annotations

import functools
import gc
import json
import logging
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from typer.testing import CliRunner

from helpers import official as helper
from helpers import official_reference as reference
from pengi import checkpoint, official
from pengi.cli import app
from pengi.engine import Pengi
from pengi.errors import CheckpointError, InputError, PengiError, WeightsError
from pengi.model import Batch, Masked, PengiModel
from pengi.official import OfficialPengi, ReferenceQuirks, vocabularies

EXACT = 1e-4
"""Largest absolute difference to a golden value. Where the order of summation in float32 shows most, in the decibels of
quiet bands, it is 7.4e-5; everything behind is within 1e-5."""


# --- Golden values at full size -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=helper.VARIANTS)
def full(request: pytest.FixtureRequest) -> Iterator[tuple[str, PengiModel, dict[str, Tensor]]]:
    """A variant's rule-made checkpoint through the importer, with its golden values."""
    golden = helper.golden(request.param)
    model = checkpoint.load(helper.imported(request.param))
    yield request.param, model, golden
    del model
    gc.collect()  # before the next variant is loaded: one and a half gigabytes


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=EXACT)


def golden_prompts(golden: dict[str, Tensor], model: PengiModel) -> list[str]:
    """Texts that the stand-in tokenizers read as the golden ids."""
    if model.text_encoder is not None:
        pairs = zip(golden["clip_input_ids"], golden["clip_attention_mask"], strict=True)
        return [helper.text_of(ids[mask.bool()][1:-1]) for ids, mask in pairs]
    end = model.language_model.end_id
    return [helper.text_of(ids[: ids.tolist().index(end)]) for ids in golden["gpt2_prompt_ids"]]


def golden_features(golden: dict[str, Tensor], model: PengiModel) -> Masked:
    waveform = golden["waveform_44k"]
    features: Masked = model.branches["htsat"].encoder.features(waveform, torch.full((2,), waveform.shape[1]))
    return features


@torch.inference_mode()
def test_audio_path_is_the_official_one(full: tuple[str, PengiModel, dict[str, Tensor]]) -> None:
    _, model, golden = full
    branch = model.branches["htsat"]
    close(branch.encoder.log_mel(golden["waveform_44k"])[:, ::8], golden["logmel_every8"])
    tokens = model.audio_tokens([golden_features(golden, model)])
    assert tokens[0][0].shape == (2, 64, 768)
    close(tokens[0][0].mean(1), golden["audio_pooled"])
    assert branch.projection is not None
    close(branch.projection.project(tokens[0][0].mean(1)), golden["audio_projected"])
    close(branch.embeddings(tokens[0])[0][:, 0], golden["audio_embedding_l2"])
    close(model.audio_prefix(tokens)[0], golden["audio_prefix"])


@torch.inference_mode()
def test_prompt_path_is_the_official_one(full: tuple[str, PengiModel, dict[str, Tensor]]) -> None:
    """As the official wrapper has it, which does not scale the prompt's embedding to length one."""
    _, model, golden = full
    prompts = golden_prompts(golden, model)
    if model.text_projection is None:
        assert [model.prompt_ids(prompt) for prompt in prompts] == golden["gpt2_prompt_ids"].tolist()
        close(model.text_prefix(prompts)[0], golden["prompt_prefix_wrapper"])
        return
    raw = OfficialPengi(model, "golden", model.device, ReferenceQuirks(raw_prompt_embedding=True))
    close(torch.from_numpy(np.concatenate(raw.prompt_embeddings(prompts))), golden["prompt_embedding_raw"])
    close(torch.from_numpy(np.stack(raw.prompt_prefix(prompts))), golden["prompt_prefix_wrapper"])


@torch.inference_mode()
def test_prefix_logits_and_loss_are_the_official_ones(full: tuple[str, PengiModel, dict[str, Tensor]]) -> None:
    _, model, golden = full
    prompts = golden_prompts(golden, model)
    features = golden_features(golden, model)
    prefix, mask = model.prefix(model.audio_tokens([features]), model.text_prefix(prompts))
    assert mask.shape == (2, 80)
    assert mask.all()
    close(prefix, golden["prefix_model"])

    lm = model.language_model
    embeddings = torch.cat([prefix, lm.embed(golden["target_ids"])], 1)
    logits = lm.logits(lm.hidden(embeddings)[:, 79:85])
    best = logits.topk(20)
    assert torch.equal(best.indices, golden["logits_target_positions_top_ids"])
    close(best.values, golden["logits_target_positions_top"])

    targets = tuple(helper.text_of(ids[:-1]) for ids in golden["target_ids"])
    assert [model.target_ids(target) for target in targets] == golden["target_ids"].tolist()
    loss = model(Batch((features,), torch.tensor([0, 1]), tuple(prompts), targets))
    for example in (0, 1):
        close(loss.token_losses_N[loss.example_N == example], golden["loss_per_token"][example])


def test_parameter_counts_are_the_papers(full: tuple[str, PengiModel, dict[str, Tensor]]) -> None:
    variant, model, _ = full
    total, trained = official.parameter_counts(model)
    if variant == "base":
        assert (round(total / 1e6, 1), round(trained / 1e6, 1)) == (323.4, 134.8)
    buffers = ("running_mean", "running_var", "tracked", "attn_mask", "relative_position_index", "lm_head.weight")
    unused = () if variant == "base" else ("text_project.linear.weight", "text_project.linear.bias")
    listed = [torch.Size(shape).numel() for name, shape, _, _ in helper.listing(variant)
              if not name.endswith(buffers + unused)]  # fmt: skip
    assert total == sum(listed)


# --- The same in tiny: runs everywhere ------------------------------------------------------------------------------

VARIANTS = ("base", "base-no-text-enc")
PROMPTS = ("t3 t14 t15 t9", "t26")
TARGETS = ("t5 t35 t8 t9 t7", "t9")
SIZES = {"hop": 160, "side": 64, "heads": (1, 2, 4), "window": 4}

Import = Callable[..., Path]


@pytest.fixture
def tokenizers(tmp_path: Path) -> Path:
    return helper.write_tiny_tokenizers(tmp_path / "tokenizers")


@pytest.fixture
def import_tiny(tmp_path: Path, tokenizers: Path) -> Import:
    """Write a state dict as published, import it as the tiny model, give the checkpoint's folder."""

    def run(state: dict[str, Tensor], prefix: str = "", **options: str) -> Path:
        path = helper.write_pth(state, tmp_path / "published.pth", prefix=prefix)
        return official.import_official(
            path, tmp_path / "out", tokenizers=tokenizers, architectures=helper.tiny_architectures(), **options
        )

    return run


def expected_prefix(w: dict[str, Tensor], variant: str, waveform: Tensor) -> Tensor:
    """The reference's prefix for the first of ``PROMPTS`` on each clip."""
    pooled = reference.audio_map(w, waveform, **SIZES).mean((1, 2))
    audio = functional.normalize(reference.project(w, "audio_encoder.projection", pooled), dim=-1)
    ids = [int(word[1:]) for word in PROMPTS[0].split()]
    if variant == "base":
        pooled = reference.clip_pooled(w, [48, *ids, 49], heads=2) @ w["caption_encoder.clip_text_projection.weight"].T
        asked = functional.normalize(reference.project(w, "caption_encoder.projection", pooled), dim=-1)
    else:
        asked = reference.token_embeddings(w, [*ids, 59, *[0] * (helper.TINY_PREFIX - len(ids) - 1)])[None]
    prefixes = [
        reference.mapped(w, "caption_decoder.audio_project", audio),
        reference.mapped(w, "caption_decoder.text_project", asked).expand(len(waveform), -1, -1),
    ]
    return torch.cat(prefixes, 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_tiny_model_is_what_its_state_dict_says(variant: str, import_tiny: Import) -> None:
    w = helper.tiny_state_dict(variant)
    model = checkpoint.load(import_tiny(w, prefix="module."))
    waveform = 0.1 * torch.randn(2, 32_000, generator=torch.Generator().manual_seed(0))
    features: Masked = model.branches["htsat"].encoder.features(waveform, torch.tensor([32_000, 32_000]))
    with torch.inference_mode():
        prefix, _ = model.prefix(model.audio_tokens([features]), model.text_prefix([PROMPTS[0]] * 2))
        loss = model(Batch((features,), torch.tensor([1]), PROMPTS[:1], TARGETS[:1]))
    expected = expected_prefix(w, variant, waveform)
    torch.testing.assert_close(prefix, expected, rtol=0, atol=2e-5)

    ids = [int(word[1:]) for word in TARGETS[0].split()]
    read = torch.cat([expected[1], reference.token_embeddings(w, ids)])[None]
    log_probs = reference.logits(w, read, heads=4)[0, prefix.shape[1] - 1 :].log_softmax(-1)
    picked = log_probs.gather(1, torch.tensor([*ids, 59])[:, None])[:, 0]
    torch.testing.assert_close(loss.token_losses_N, -picked, rtol=0, atol=2e-5)


def test_every_value_arrives_unchanged(import_tiny: Import) -> None:
    w = helper.tiny_state_dict()
    folder = import_tiny(w)
    trained = load_file(folder / "model.safetensors")
    qkv = w["audio_encoder.base.htsat.layers.1.blocks.1.attn.qkv.weight"]
    attention = "audio.0.encoder.swin.layers.1.blocks.1.attention.self"
    parts = [trained[f"{attention}.{part}.weight"] for part in ("query", "key", "value")]
    assert torch.equal(torch.cat(parts), qkv)
    assert torch.equal(trained["audio.0.encoder.mel_KM"], w["audio_encoder.base.htsat.logmel_extractor.melW"])
    frozen = load_file(folder / "language_model/model.safetensors")
    assert {f"caption_decoder.gpt.{name}" for name in frozen} | {"caption_decoder.gpt.lm_head.weight"} == {
        name for name in w if name.startswith("caption_decoder.gpt.")
    }
    for name, value in frozen.items():
        assert torch.equal(value, w[f"caption_decoder.gpt.{name}"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "language_model", "model.safetensors", "text_encoder"
    ]  # fmt: skip


def test_buffers_of_older_libraries_are_ignored_by_name(import_tiny: Import) -> None:
    w = helper.tiny_state_dict()
    w["caption_decoder.gpt.transformer.h.0.attn.bias"] = torch.ones(1, 1, 128, 128, dtype=torch.uint8).tril()
    w["caption_decoder.gpt.transformer.h.1.attn.masked_bias"] = torch.tensor(-1e4)
    w["caption_encoder.base.embeddings.position_ids"] = torch.arange(77)[None]
    del w["audio_encoder.base.htsat.bn0.num_batches_tracked"]
    assert checkpoint.load(import_tiny(w)).config.name == "tiny-base"


def test_another_filterbank_is_taken_with_a_warning(import_tiny: Import, caplog: pytest.LogCaptureFixture) -> None:
    w = helper.tiny_state_dict()
    w["audio_encoder.base.htsat.logmel_extractor.melW"] *= 2
    with caplog.at_level(logging.WARNING, "pengi"):
        folder = import_tiny(w)
    assert "mel filterbank differs" in caplog.text
    clip = torch.randn(1, 32_000, generator=torch.Generator().manual_seed(0))
    encoder = checkpoint.load(folder).branches["htsat"].encoder
    torch.testing.assert_close(encoder.log_mel(clip), reference.log_mel(w, clip, 160), rtol=0, atol=1e-3)


def test_the_usual_filterbank_needs_no_warning(import_tiny: Import, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pengi"):
        import_tiny(helper.tiny_state_dict())
    assert caplog.text == ""


def test_a_checkpoint_can_be_moved_with_its_parts(
    import_tiny: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = import_tiny(helper.tiny_state_dict()).rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    model = checkpoint.load(Path("moved"))
    assert model.config.language_model.name == str(moved / "language_model")
    # What is trained on from it finds the parts where they are.
    checkpoint.save(model, tmp_path / "tuned", card="")
    assert checkpoint.load(tmp_path / "tuned").language_model.vocab_size == 60
    (moved / "text_encoder").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="lacks its folder 'text_encoder'"):
        checkpoint.load(moved)


def test_an_imported_model_trains(import_tiny: Import) -> None:
    """Gradients reach everything that is counted as trained but the carried-along AudioSet head, and nothing else."""
    model = checkpoint.load(import_tiny(helper.tiny_state_dict())).train()
    clips = torch.randn(2, 32_000)
    features: Masked = model.branches["htsat"].encoder.features(clips, torch.tensor([32_000, 9_000]))
    model(Batch((features,), torch.tensor([0, 1]), PROMPTS, TARGETS), augment=lambda x: x * 0.9).mean.backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    without = {name for name, parameter in trained.items() if parameter.grad is None}
    assert {name.split(".")[3] for name in without} == {"tscam_conv", "head"}
    assert not any(parameter.requires_grad for parameter in model.language_model.parameters())
    assert model.text_encoder is not None
    assert not any(parameter.requires_grad for parameter in model.text_encoder.parameters())


def test_real_recordings_are_answered_alone_and_together(import_tiny: Import, shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    paths = [shared_data / row["audio"] for row in rows if row["duration_s"] > helper.TINY_SECONDS][:2]
    engine = Pengi.from_pretrained(import_tiny(helper.tiny_state_dict()), device="cpu")
    together = [answer.text for answer in engine.ask(paths, "t4")]
    assert together == [engine.ask(path, "t4").text for path in paths]


# --- Refusals -------------------------------------------------------------------------------------------------------

HTSAT = "audio_encoder.base.htsat."
Spoil = Callable[[Path, dict[str, Tensor]], object]


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.unlink, ("anything",)


def _write(path: Path, content: object) -> None:
    torch.save(content, path)


def _changed(name: str, change: Callable[[Tensor], Tensor]) -> Spoil:
    def spoil(path: Path, state: dict[str, Tensor]) -> None:
        _write(path, {"model": {**state, name: change(state[name])}})

    return spoil


def _with_value(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        changed.view(-1)[-1] = value
        return changed

    return change


def _truncated(path: Path, state: dict[str, Tensor]) -> None:
    helper.write_pth(state, path)
    path.write_bytes(path.read_bytes()[:-1000])


def _flipped(path: Path, state: dict[str, Tensor]) -> None:
    helper.write_pth(state, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _compressed(path: Path, state: dict[str, Tensor]) -> None:
    plain = helper.write_pth({"zeros": torch.zeros(1 << 20)}, path.with_suffix(".plain"))
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in source.infolist():
            packed.writestr(entry.filename, source.read(entry))
    plain.unlink()


def _zip_of(name: str) -> Spoil:
    def spoil(path: Path, state: dict[str, Tensor]) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            if name:
                archive.writestr(name, "not what torch writes")

    return spoil


def _without(name: str) -> Spoil:
    return lambda path, state: _write(path, {"model": {key: value for key, value in state.items() if key != name}})


def _with_entry(name: str, value: object) -> Spoil:
    return lambda path, state: _write(path, {"model": {**state, name: value}})


SPOILT: dict[str, tuple[Spoil, str]] = {
    "no file": (lambda path, state: None, "no checkpoint file"),
    "a folder": (lambda path, state: path.mkdir(), "no checkpoint file"),
    "an empty file": (lambda path, state: path.touch(), "not a PyTorch checkpoint"),
    "a text": (lambda path, state: path.write_text("dear diary " * 99, encoding="utf-8"), "not a PyTorch checkpoint"),
    "a bare pickle": (lambda path, state: path.write_bytes(pickle.dumps({"model": {}})), "not a PyTorch checkpoint"),
    "truncated": (_truncated, "only a part of one"),
    "a flipped byte": (_flipped, "damaged"),
    "an empty zip": (_zip_of(""), "not one that torch.save wrote"),
    "another zip": (_zip_of("word/document.xml"), "not one that torch.save wrote"),
    "a zip with a broken pickle": (_zip_of("archive/data.pkl"), "damaged or foreign"),
    "a packed zip": (_compressed, "unpacks to more than it is"),
    "a pickle with code": (lambda path, state: _write(path, {"model": _Code()}), "they could run code"),
    "a whole module": (lambda path, state: _write(path, {"model": nn.Linear(2, 2)}), "they could run code"),
    "no dictionary": (lambda path, state: _write(path, list(state.values())), "no state dict under the key 'model'"),
    "no model": (lambda path, state: _write(path, state), "no state dict under the key 'model'"),
    "an empty model": (
        lambda path, state: _write(path, {"model": {}}),
        "not a published Pengi checkpoint but another model",
    ),
    "another architecture": (
        lambda path, state: _write(path, {"model": nn.Sequential(nn.Linear(2, 2)).state_dict()}),
        "another model: '0.bias' is one of its entries",
    ),
    "an entry that is no tensor": (_with_entry("epoch", 3), "'epoch' is not a plain tensor"),
    "a sparse tensor": (_with_entry("extra", torch.eye(3).to_sparse()), "not a plain tensor"),
    "a name twice": (_with_entry(f"module.{HTSAT}norm.weight", torch.ones(32)), "twice"),
    "a missing entry": (_without(f"{HTSAT}norm.bias"), "lacks 'audio_encoder.base.htsat.norm.bias'"),
    "no STFT kernels": (_without(f"{HTSAT}spectrogram_extractor.stft.conv_imag.weight"), "lacks"),
    "no output embeddings": (_without("caption_decoder.gpt.lm_head.weight"), "lacks"),
    "an entry too many": (_with_entry("audio_encoder.extra.weight", torch.ones(1)), "does not explain"),
    "a wrong shape": (
        _changed("caption_decoder.audio_project.prefix_const", lambda tensor: tensor.T.contiguous()),
        r"shape \[32, 6\] instead of \[6, 32\]",
    ),
    "a huge view of one number": (
        _changed("caption_decoder.gpt.transformer.wte.weight", lambda _: torch.ones(1, 1).expand(1 << 30, 1 << 12)),
        "has shape",
    ),
    "half precision": (_changed(f"{HTSAT}head.weight", Tensor.half), "holds float16 instead of float32"),
    "not a number": (_changed(f"{HTSAT}tscam_conv.bias", _with_value(float("nan"))), "not finite"),
    "infinity": (_changed("caption_decoder.gpt.transformer.ln_f.bias", _with_value(float("inf"))), "not finite"),
    "an untied head": (_changed("caption_decoder.gpt.lm_head.weight", lambda tensor: tensor + 1), "GPT-2 shares"),
    "another STFT": (
        _changed(f"{HTSAT}spectrogram_extractor.stft.conv_real.weight", lambda tensor: tensor.roll(1, 0)),
        "not what this architecture computes",
    ),
    "another shift mask": (_changed(f"{HTSAT}layers.0.blocks.1.attn_mask", torch.zeros_like), "another model"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_is_no_whole_checkpoint_is_refused_in_one_sentence(
    kind: str, tmp_path: Path, tokenizers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, sentence = SPOILT[kind]
    path = tmp_path / "published.pth"
    spoil(path, helper.tiny_state_dict())
    run = functools.partial(official.import_official, architectures=helper.tiny_architectures())
    with pytest.raises(CheckpointError, match=sentence) as refused:
        run(path, tmp_path / "out", tokenizers=tokenizers)
    assert "\n" not in str(refused.value)

    monkeypatch.setattr(official, "import_official", run)
    arguments = ["import-official", path, "--out", tmp_path / "out", "--tokenizers", tokenizers]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: {refused.value}\n"
    assert {found.name for found in tmp_path.iterdir()} <= {"published.pth", "tokenizers"}


def test_code_in_a_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("anything").touch()
    _write(tmp_path / "published.pth", {"model": _Code()})
    with pytest.raises(CheckpointError):
        official.import_official(tmp_path / "published.pth", tmp_path / "out")
    assert Path("anything").exists()


@pytest.mark.parametrize(("variant", "config"), [("base", "base-no-text-enc"), ("base-no-text-enc", "base")])
def test_the_other_of_the_two_models_is_refused(variant: str, config: str, import_tiny: Import) -> None:
    with pytest.raises(CheckpointError, match="does not explain" if variant == "base" else "lacks 'caption_encoder"):
        import_tiny(helper.tiny_state_dict(variant), config=config)


def test_an_unknown_configuration_is_refused(import_tiny: Import) -> None:
    with pytest.raises(InputError, match="choose one of auto, base, base-no-text-enc"):
        import_tiny(helper.tiny_state_dict(), config="large")


def test_nothing_is_overwritten(import_tiny: Import, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    folder = import_tiny(helper.tiny_state_dict())  # an empty folder may be there
    before = (folder / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(InputError, match="already exists"):
        import_tiny(helper.tiny_state_dict())
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_an_import_that_breaks_off_leaves_nothing(
    import_tiny: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pengi.official.importer.save_file", full_disk)
    with pytest.raises(InputError, match="could not be written: no space left on the disk"):
        import_tiny(helper.tiny_state_dict())
    assert {found.name for found in tmp_path.iterdir()} == {"published.pth", "tokenizers"}


# --- Tokenizers -----------------------------------------------------------------------------------------------------


def test_tokenizers_of_another_model_are_refused(tmp_path: Path, tokenizers: Path, import_tiny: Import) -> None:
    helper.write_tokenizers(tokenizers, gpt2=61)
    with pytest.raises(WeightsError, match="is not the tokenizer of openai-community/gpt2"):
        import_tiny(helper.tiny_state_dict())


@pytest.mark.parametrize("content", [None, "{}"], ids=["missing", "unreadable"])
def test_a_tokenizer_that_cannot_be_had_is_named(tokenizers: Path, import_tiny: Import, content: str | None) -> None:
    file = tokenizers / "clip-vit-base-patch16/tokenizer.json"
    file.unlink()
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"clip-vit-base-patch16/tokenizer\.json"):
        import_tiny(helper.tiny_state_dict())
    import_tiny(helper.tiny_state_dict("base-no-text-enc"))  # which needs none


def test_without_a_folder_the_hub_is_asked(tmp_path: Path, tokenizers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(repository: str, file: str) -> str:
        asked.append(repository)
        return str(tokenizers / repository.rsplit("/", 1)[-1] / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    chosen = helper.tiny_architectures()["base"]
    assert set(vocabularies.find_tokenizers(chosen, None)) == {"language_model", "text_encoder"}
    assert asked == ["openai-community/gpt2", "openai/clip-vit-base-patch16"]


def test_without_folder_and_network_one_sentence_says_what_to_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", no_network)
    path = helper.write_pth(helper.tiny_state_dict(), tmp_path / "published.pth")
    with pytest.raises(PengiError, match=r"put it into FOLDER/gpt2/ and pass --tokenizers FOLDER"):
        official.import_official(path, tmp_path / "out", architectures=helper.tiny_architectures())
