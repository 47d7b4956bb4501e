"""Compares the speed with the official algorithm: seconds per 7 s clip, same machine, same weights, same answers.

    python benchmarks/official_speed.py --out results/official-speed.json

The official algorithm (``oracle.py``) processes one clip at a time and runs the language model on the whole sequence of
every beam at every step. Our search caches keys and values, does not compute finished beams, and processes clips in
batches. Its ``reference`` search gives the same beams, which is checked; the default search is timed, too. The weights
are random (nothing is downloaded), with the sizes of ``pengi-base``. A random model hardly ever ends a text, so the
searches reach their limit. ``--tiny`` uses small sizes, to test the script.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import torch
from transformers import CLIPTextModel, GPT2LMHeadModel

from pengi import Pengi
from pengi.decoding import DecodeOptions
from pengi.encoders import build_encoder
from pengi.language_model import LanguageModel
from pengi.model import PengiModel
from pengi.official import ARCHITECTURES, Architecture, ReferenceOptions
from pengi.official.architectures import architecture
from pengi.text_encoder import ClipTextEncoder, SentenceEncoder

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


def random_model(chosen: Architecture) -> PengiModel:
    """The paper's architecture with random weights; its tokenizers are those of other tiny models."""
    torch.manual_seed(0)
    assert chosen.text_encoder is not None
    encoders = [build_encoder(branch, None) for branch in chosen.model.audio.values()]
    sentence, language = SentenceEncoder.tiny(), LanguageModel.tiny()
    clip = ClipTextEncoder(CLIPTextModel(chosen.text_encoder), sentence._tokenizer, chosen.model.text.max_tokens)
    gpt2 = GPT2LMHeadModel(chosen.language_model)
    gpt2.set_attn_implementation("sdpa")
    end_id = chosen.language_model.eos_token_id
    assert isinstance(end_id, int)
    lm = LanguageModel(gpt2, language.tokenizer, end_id)
    return PengiModel(chosen.model, encoders, clip, lm).eval()


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


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Median time of a few runs after a warm-up run, and the last result."""
    result = work()
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times), result


def measure(tiny: bool) -> dict[str, Any]:
    model = random_model(TINY if tiny else ARCHITECTURES["base"])
    pengi = Pengi(model, "random", torch.device("cpu"))
    rate = model.branches["htsat"].encoder.sample_rate
    generator = np.random.default_rng(0)
    clips = [(0.1 * generator.standard_normal(7 * rate).astype(np.float32), rate) for _ in range(BATCH)]
    max_tokens = 6 if tiny else MAX_TOKENS
    reference = ReferenceOptions(BEAMS, max_tokens)

    official_s, means = seconds(lambda: official_way(model, clips[0][0], reference))
    rows = {"official algorithm, one clip": official_s}
    for name, options in (("reference search", reference), ("default search", DecodeOptions(BEAMS, max_tokens))):
        alone_s, alone = seconds(partial(pengi.generate, clips[0], PROMPT, options=options))
        batch_s, _ = seconds(partial(pengi.generate, clips, PROMPT, options=options))
        rows[f"ours, {name}, one clip"] = alone_s
        rows[f"ours, {name}, batch of {BATCH}"] = batch_s / BATCH
        if options is reference:
            difference = max(abs(text.score - mean) for text, mean in zip(alone.texts, means, strict=True))
            assert difference < TOLERANCE, f"the two searches differ by {difference}"
    return {
        "what": "seconds per 7 s clip, audio in memory to text",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "beams": BEAMS,
        "new_tokens": max_tokens,
        "repeats": REPEATS,
        "seconds_per_clip": rows,
        "times_faster": {name: official_s / value for name, value in rows.items()},
        "largest_score_difference": difference,
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    results = measure(options.tiny)
    for name, value in results["seconds_per_clip"].items():
        print(f"{name:45} {value:8.3f} s {results['times_faster'][name]:8.1f} x")
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
