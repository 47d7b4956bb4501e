"""Compares the speed with the official algorithm: seconds per 7 s clip, same machine, same weights, same answers.

    python benchmarks/official_speed.py --out results/official-speed.json

GPT-2 runs in torch and in onnxruntime, which take turns, so that other load on the machine affects both. The official
algorithm (``oracle.py``), which ``--ours-only`` leaves out, processes one clip at a time and runs the language model on
the whole sequence of every beam at every step. Our search caches keys and values, does not compute finished beams, and
processes clips in batches. Its ``reference`` search gives the same beams in torch, which is checked; the default search
is timed, too. The weights are random (nothing is downloaded), with the sizes of ``pengi-base``. A random model hardly
ever ends a text, so the searches reach their limit. ``--tiny`` uses small sizes, to test the script.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import torch
from run_record import run_record, write_results
from transformers import CLIPTextModel, GPT2LMHeadModel

from pengi import Pengi
from pengi.decoding import DecodeOptions
from pengi.encoders import build_encoder
from pengi.language_model import LanguageModel
from pengi.model import PengiModel
from pengi.official import ARCHITECTURES, Architecture, ReferenceOptions
from pengi.official.architectures import architecture
from pengi.runtime.decoder import OnnxLanguageModel
from pengi.text_encoder import ClipTextEncoder, SentenceEncoder

OFFICIAL = "official algorithm, one clip"
PROMPT = "generate metadata"
BEAMS, MAX_TOKENS = 5, 30
BATCH = 8
REPEATS = 3
TOLERANCE = 1e-3
"""Largest difference between the mean log-probabilities of the two searches: float32 sums in another order."""

TINY = architecture(
    "tiny",
    "htsat-tiny-random",
    {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0},
    {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    projection=24,
)


def random_models(chosen: Architecture, scratch: Path) -> dict[str, PengiModel]:
    """The paper's architecture with random weights, by the runtime of its language model; its tokenizers are those of
    other tiny models."""
    torch.manual_seed(0)
    assert chosen.text_encoder is not None
    encoders = [build_encoder(branch, None) for branch in chosen.model.audio.values()]
    sentence, language = SentenceEncoder.tiny(), LanguageModel.tiny()
    clip = ClipTextEncoder(CLIPTextModel(chosen.text_encoder), sentence._tokenizer, chosen.model.text.max_tokens)
    gpt2 = GPT2LMHeadModel(chosen.language_model)
    gpt2.set_attn_implementation("sdpa")
    end_id = chosen.language_model.eos_token_id
    assert isinstance(end_id, int)
    in_torch = LanguageModel(gpt2, language.tokenizer, end_id)
    gpt2.save_pretrained(scratch)
    language.tokenizer.save(str(scratch / "tokenizer.json"))
    in_onnx = OnnxLanguageModel.from_folder(scratch)
    return {
        name: PengiModel(chosen.model, encoders, clip, lm).eval()
        for name, lm in (("torch", in_torch), ("onnxruntime", in_onnx))
    }


@torch.no_grad()
def official_way(model: PengiModel, clip_S: np.ndarray, options: DecodeOptions) -> list[float]:
    """Mean log-probabilities of all beams for one clip."""
    waveform_1S = torch.from_numpy(clip_S)[None]
    tokens = [branch.encoder(waveform_1S, torch.tensor([waveform_1S.shape[1]])) for branch in model.branches.values()]
    prefix_1PD, _ = model.prefix(tokens, model.text_prefix([PROMPT]))
    lm = model.language_model
    beams = oracle.search(
        lm.model, prefix_1PD[0], beams=options.beams, max_tokens=options.max_tokens, stop_id=lm.end_id
    )
    return [beam.mean for beam in beams]


def in_turns(works: Mapping[str, Callable[[], Any]]) -> dict[str, tuple[float, Any]]:
    """Median time in s of a few runs of each work after a warm-up run, and its last result."""
    results = {name: work() for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS):
        for name, work in works.items():
            begun = time.perf_counter()
            results[name] = work()
            times[name].append(time.perf_counter() - begun)
    return {name: (statistics.median(times[name]), results[name]) for name in works}


def measure(scratch: Path, tiny: bool, ours_only: bool) -> dict[str, Any]:
    models = random_models(TINY if tiny else ARCHITECTURES["base"], scratch)
    engines = {name: Pengi(model, "random", torch.device("cpu")) for name, model in models.items()}
    in_torch = models["torch"]
    rate = in_torch.branches["htsat"].encoder.sample_rate
    generator = np.random.default_rng(0)
    clips = [(0.1 * generator.standard_normal(7 * rate).astype(np.float32), rate) for _ in range(BATCH)]
    max_tokens = 6 if tiny else MAX_TOKENS
    reference = ReferenceOptions(BEAMS, max_tokens)
    rows: dict[str, float] = {}
    means: list[float] | None = None
    if not ours_only:
        official = in_turns({OFFICIAL: partial(official_way, in_torch, clips[0][0], reference)})
        rows[OFFICIAL], means = official[OFFICIAL]
    for search, options in (("reference search", reference), ("default search", DecodeOptions(BEAMS, max_tokens))):
        asked = {name: partial(engine.generate, prompts=PROMPT, options=options) for name, engine in engines.items()}
        alone = in_turns({name: partial(ask, clips[0]) for name, ask in asked.items()})
        batch = in_turns({name: partial(ask, clips) for name, ask in asked.items()})
        for name in engines:
            rows[f"ours in {name}, {search}, one clip"] = alone[name][0]
            rows[f"ours in {name}, {search}, batch of {BATCH}"] = batch[name][0] / BATCH
        if options is reference and means is not None:
            texts = alone["torch"][1].texts
            difference = max(abs(text.score - mean) for text, mean in zip(texts, means, strict=True))
            assert difference < TOLERANCE, f"the two searches differ by {difference}"
    found = {
        "what": "seconds per 7 s clip, audio in memory to text",
        "parameters": sum(parameter.numel() for parameter in in_torch.parameters()),
        "beams": BEAMS,
        "new_tokens": max_tokens,
        "repeats": REPEATS,
        "seconds_per_clip": rows,
    }
    if means is not None:
        found["times_faster"] = {name: rows[OFFICIAL] / value for name, value in rows.items()}
        found["largest_score_difference"] = difference
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--ours-only", action="store_true", help="leave out the official algorithm")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(Path(scratch), options.tiny, options.ours_only)
    write_results({**run_record(), **results}, options.out)


if __name__ == "__main__":
    main()
