"""Sessions of onnxruntime that are opened while torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pengi.errors import WeightsError
from pengi.runtime import sessions, store
from pengi.runtime.architecture import HEAD_FILE, PREFILL_FILE, STEP_FILE
from pengi.runtime.decoder import OnnxLanguageModel


@pytest.fixture(autouse=True)
def _nothing_ahead() -> Iterator[None]:
    yield
    sessions._ahead.clear()


def prefilled(folder: Path) -> torch.Tensor:
    embeds_BTD = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
    return OnnxLanguageModel.from_folder(folder).prefill(embeds_BTD, torch.ones(2, 6, dtype=torch.bool))[0]


def test_sessions_opened_ahead_are_those_that_the_model_uses(four_bits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected_BTV = prefilled(four_bits)
    sessions.open_ahead()
    graphs = store.built(four_bits, {})
    assert list(sessions._ahead) == [graphs / file for file in (PREFILL_FILE, STEP_FILE, HEAD_FILE)]
    ahead = sessions._ahead[graphs / PREFILL_FILE].result()
    with monkeypatch.context() as patched:
        patched.setattr(sessions, "_open", lambda file, threads: pytest.fail(f"'{file}' was opened again"))
        assert sessions.opened(graphs / PREFILL_FILE, 1) is ahead
    sessions._ahead.clear()
    sessions.open_ahead()
    assert torch.equal(prefilled(four_bits), expected_BTV)
    assert list(sessions._ahead) == [graphs / STEP_FILE]


def test_those_of_another_model_are_dropped(four_bits: Path, any_floats: Path) -> None:
    expected_BTV = prefilled(any_floats)
    prefilled(four_bits)
    os.utime(store.built(any_floats, {}), (0, 0))
    sessions.open_ahead()
    assert next(iter(sessions._ahead)).parent == store.built(four_bits, {})
    assert torch.equal(prefilled(any_floats), expected_BTV)
    assert sessions._ahead == {}


def test_without_graphs_and_with_damaged_ones_none_is_opened(four_bits: Path) -> None:
    sessions.open_ahead()
    assert sessions._ahead == {}
    prefilled(four_bits)
    head = store.built(four_bits, {}) / HEAD_FILE
    head.write_bytes(head.read_bytes()[:-9])
    sessions.open_ahead()
    assert sessions._ahead == {}


def test_a_file_that_is_no_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / HEAD_FILE).write_text("no graph")
    with pytest.raises(WeightsError, match=r"head\.onnx'.*PENGI_RUNTIME=torch"):
        sessions.opened(tmp_path / HEAD_FILE, 1)


def test_they_are_opened_without_torch_with_as_many_threads_as_torch_has() -> None:
    code = (
        "import sys, pengi.runtime.sessions as sessions; sessions.open_ahead(); "
        "assert 'torch' not in sys.modules; "
        "import torch; assert sessions.torch_threads() == torch.get_num_threads()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
