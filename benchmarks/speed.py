"""Measures the speed of pengi-mini on this machine, with its language model in torch (float32) and in onnxruntime.

    python benchmarks/speed.py --out results/speed.json
    python benchmarks/speed.py --language-model gpt2-random --steps-only --out results/speed-gpt2.json

Times are medians of 5 wall-clock times. The two take turns in one process (for starts, in new processes), so that other
load on the machine affects both. A step is one token of every row after a prefix of 42 tokens, with logits. In the
shipped setting of onnxruntime, steps round the inputs of products to 8 bits and prefixes do not. The opposite setting
is also measured: "step, float inputs" and "prefill, 8-bit inputs". Agreement with torch is measured on real texts,
token by token: mean and largest Kullback-Leibler divergence in nats, and how often both have the same most likely
token. ``benchmarks/parity.py`` compares answers about recordings. ``gpt2-random`` is GPT-2 base, the language model of
``pengi-base``, with random weights (``benchmarks/random_gpt2.py``).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import random_gpt2
import torch
from run_record import run_record, write_results
from torch import Tensor

from pengi import Pengi, weights
from pengi.language_model import DecoderState, LanguageModel
from pengi.runtime import RUNTIME_ENV
from pengi.runtime.decoder import OnnxLanguageModel
from pengi.timing import EXAMPLES, clips

GPT2_RANDOM = "gpt2-random"
REPEATS = 5
ROWS = (1, 3, 6, 16)
PREFIXES = ((1, 42), (3, 42), (6, 42), (1, 150))  # rows, tokens
BATCH = 4
STEP_PREFIX = 42
TEXTS = (
    "A dog barks twice while rain falls on a tin roof, and a car passes by on the wet street outside.",
    "People are talking in a large hall, and someone laughs loudly before the music begins to play.",
    "The engine starts, idles for a few seconds and then shuts off with a rattle; birds sing far away.",
    "Question: what is the weather like? Answer: It is raining heavily, and there is thunder in the distance.",
)


def ids_of(model: LanguageModel, rows: int, tokens: int) -> Tensor:
    """Token ids int64[rows, tokens] of the concatenated texts."""
    stream = model.encode(" ".join(TEXTS * (1 + tokens // 60)))
    return torch.stack([torch.tensor(stream[row : row + tokens]) for row in range(rows)])


def timed(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return (time.perf_counter() - begun) * 1000


def in_turns(ways: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Median time of each variant in ms; the first run of each is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(1 + repeats):
        for name, run in ways.items():
            spent = timed(run)
            if repeat:
                times[name].append(spent)
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def stepping(model: LanguageModel, rows: int) -> Callable[[], object]:
    """Steps that continue from each other, as in a search whose beams have one prefix."""
    ids_BT = ids_of(model, rows, STEP_PREFIX + 1)
    state: DecoderState = model.prefill(model.embed(ids_BT[:1, :-1]))[1]
    state = model.select(state, torch.zeros(rows, dtype=torch.long))

    def step() -> None:
        nonlocal state
        _, state = model.step(ids_BT[:, -1:], state)

    return step


def prefilling(model: LanguageModel, rows: int, tokens: int) -> Callable[[], object]:
    embeds_BTD = model.embed(ids_of(model, rows, tokens))
    return lambda: model.prefill(embeds_BTD)


def speeds(
    torch_model: LanguageModel, shipped: OnnxLanguageModel, other: OnnxLanguageModel, row_counts: Sequence[int]
) -> dict[str, Any]:
    found: dict[str, Any] = {"step": {}, "prefill": {}}
    for rows in row_counts:
        found["step"][str(rows)] = in_turns(
            {
                "torch": stepping(torch_model, rows),
                "onnxruntime": stepping(shipped, rows),
                "step, float inputs": stepping(other, rows),
            }
        )
    for rows, tokens in PREFIXES:
        found["prefill"][f"{rows} x {tokens}"] = in_turns(
            {
                "torch": prefilling(torch_model, rows, tokens),
                "onnxruntime": prefilling(shipped, rows, tokens),
                "prefill, 8-bit inputs": prefilling(other, rows, tokens),
            }
        )
    for kind in found.values():
        for row in kind.values():
            row["times faster"] = round(row["torch"] / row["onnxruntime"], 2)
    return found


def log_probs(model: LanguageModel, ids_BT: Tensor) -> Tensor:
    """float32[B, T - 4, V]: after a prefix of five tokens, one step for each further token."""
    logits_BV, state = model.prefill(model.embed(ids_BT[:, :5]))
    steps = [logits_BV]
    for ids_B1 in ids_BT[:, 5:].split(1, dim=1):  # type: ignore[no-untyped-call]
        logits_B1V, state = model.step(ids_B1, state)
        steps.append(logits_B1V[:, 0])
    return torch.stack(steps, dim=1).log_softmax(-1)


def agreement(torch_model: LanguageModel, model: LanguageModel) -> dict[str, float]:
    rows = [torch_model.encode(text) for text in TEXTS]
    ids_BT = torch.tensor([row[: min(map(len, rows))] for row in rows])
    expected_BTV, found_BTV = log_probs(torch_model, ids_BT), log_probs(model, ids_BT)
    divergence_BT = (expected_BTV.exp() * (expected_BTV - found_BTV)).sum(-1)
    return {
        "tokens": divergence_BT.numel(),
        "mean_nats": round(float(divergence_BT.mean()), 5),
        "max_nats": round(float(divergence_BT.max()), 5),
        "same_best_token": round(float((expected_BTV.argmax(-1) == found_BTV.argmax(-1)).float().mean()), 4),
    }


def swapped(folder: Path) -> OnnxLanguageModel:
    """The same model with the rounding of prefixes and of steps exchanged."""
    model = OnnxLanguageModel.from_folder(folder)
    model._prefill, model._step = model._step, model._prefill
    return model


def answers(model: str) -> dict[str, dict[str, float]]:
    """One recording of 10 s, and several together, in ms."""
    in_torch, in_onnx = (Pengi.from_pretrained(model, device="cpu", runtime=name) for name in ("torch", "onnx"))
    one, many = clips(1), clips(BATCH)
    tasks: dict[str, Callable[[Pengi], object]] = {
        "describe 10 s": lambda engine: engine.describe(one),
        "ask about 10 s": lambda engine: engine.ask(one, "what is it?"),
        f"describe {BATCH} of 10 s": lambda engine: engine.describe(many),
        "a question about an encoded recording": _asking(in_torch.encode(one[0])),
    }
    found = {}
    for name, task in tasks.items():
        found[name] = in_turns({"torch": partial(task, in_torch), "onnxruntime": partial(task, in_onnx)})
        found[name]["times faster"] = round(found[name]["torch"] / found[name]["onnxruntime"], 2)
    return found


def _asking(recording: Any) -> Callable[[Pengi], object]:
    return lambda engine: engine.ask(recording, "what is it?")


def starts(model: str) -> dict[str, dict[str, float]]:
    """Processes of ``pengi describe``: ms from start to answer, and their peak memory in MB."""
    clip = str(sorted(EXAMPLES.glob("*.opus"))[0])
    command = [sys.executable, "-m", "pengi", "describe", clip, "--json", "--device", "cpu", "--model", model]
    times: dict[str, list[float]] = {"torch": [], "auto": []}
    peaks = dict.fromkeys(times, 0.0)
    for _ in range(REPEATS):
        for name, values in times.items():
            begun = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, RUNTIME_ENV: name})
            _, status, usage = os.wait4(process.pid, 0)
            assert status == 0, f"pengi describe failed with {status}"
            values.append((time.perf_counter() - begun) * 1000)
            peaks[name] = max(peaks[name], usage.ru_maxrss / 1024)
    return {name: {"ms": round(statistics.median(times[name])), "peak_mb": round(peaks[name])} for name in times}


def measured(folder: Path, row_counts: Sequence[int]) -> dict[str, Any]:
    """Agreement and speeds of the language model in a folder."""
    torch_model, shipped, other = (
        LanguageModel.from_folder(folder),
        OnnxLanguageModel.from_folder(folder),
        swapped(folder),
    )
    return {
        "agreement": {
            "onnxruntime": agreement(torch_model, shipped),
            "step, float inputs; prefill, 8-bit inputs": agreement(torch_model, other),
        },
        **speeds(torch_model, shipped, other, row_counts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pengi-mini", help="name of a model, or its folder")
    parser.add_argument(
        "--language-model", default="smollm2-135m-instruct", help=f"name of a part, a model folder, or {GPT2_RANDOM}"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="rows of the steps that are measured")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps-only", action="store_true", help="leave out answers and starts")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    named = options.language_model
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        if named == GPT2_RANDOM:
            folder = random_gpt2.write(Path(scratch))
        else:
            folder = Path(named) if Path(named).is_dir() else weights.resolve(named)
        found = measured(folder, options.rows)
    if not options.steps_only:
        found |= {"answers": answers(options.model), "start": starts(options.model)}
    model = named if options.steps_only else options.model
    write_results({**run_record(), "model": model, "unit": "ms, median of 5", **found}, options.out)


if __name__ == "__main__":
    main()
