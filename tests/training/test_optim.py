"""Rates and schedules."""

from __future__ import annotations

import pytest
import torch

from pengi.training.optim import (
    build_optimizer,
    kind_of_parameter,
    scheduled_rate,
    set_rate,
    working_dtype,
)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_rates_warm_up_and_fall_to_zero(schedule: str) -> None:
    rates = [scheduled_rate(schedule, step, 4, 10) for step in range(12)]  # type: ignore[arg-type]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[7] == pytest.approx(0.5)
    assert rates[10] == rates[11] == pytest.approx(0.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_the_rate_is_constant_until_the_decay() -> None:
    rates = [scheduled_rate("linear", step, 2, 10, decay=4) for step in range(11)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])


def test_the_two_schedules_differ_where_they_should() -> None:
    cosine, linear = ([scheduled_rate(kind, step, 0, 8) for step in range(8)] for kind in ("cosine", "linear"))
    assert linear == pytest.approx([1 - step / 8 for step in range(8)])
    assert cosine[2] > linear[2]
    assert cosine[6] < linear[6]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("audio.0.encoder.conv.3.weight", "encoder"),
        ("audio.0.mapper.layers.0.fc1.weight", "mapper"),
        ("audio.0.projection.linear1.weight", "mapper"),
        ("text_mapper.constants.value_CD", "mapper"),
        ("language_model.model.layers.0.self_attn.q_proj.lora_A.default.weight", "language_model"),
    ],
)
def test_the_kind_of_a_parameter(name: str, kind: str) -> None:
    assert kind_of_parameter(name) == kind


def test_each_kind_has_its_rate_and_vectors_do_not_decay() -> None:
    trained = {
        "audio.0.encoder.weight": torch.ones(2, 2, requires_grad=True),
        "audio.0.mapper.weight": torch.ones(2, 2, requires_grad=True),
        "audio.0.mapper.bias": torch.ones(2, requires_grad=True),
        "language_model.x.lora_A.weight": torch.ones(2, 2, requires_grad=True),
    }
    optimizer = build_optimizer(trained, {"encoder": 0.001, "mapper": 0.01, "language_model": 0.1}, 0.05)
    set_rate(optimizer, 0.5)
    found = {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert found == {(0.0005, 0.05), (0.005, 0.05), (0.005, 0.0), (0.05, 0.05)}
    set_rate(optimizer, 1.0)
    assert {group["lr"] for group in optimizer.param_groups} == {0.001, 0.01, 0.1}


@pytest.mark.parametrize(
    ("capabilities", "accelerated", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, False, torch.bfloat16),
        ({"avx512_f": True, "avx512_bf16": False, "avx512_vnni": True}, False, torch.float32),
        ({"architecture": "aarch64"}, False, torch.float32),
        ({"avx2": True}, True, torch.bfloat16),
    ],
)
def test_bfloat16_is_kept_where_the_machine_has_it(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capabilities: dict[str, bool | str],
    accelerated: bool,
    expected: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerated)
    assert working_dtype("bfloat16") is expected
    assert bool(caplog.records) == (expected is torch.float32)
    assert working_dtype("float32") is torch.float32
