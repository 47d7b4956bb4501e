"""Compares the language model's texts in onnxruntime and in torch, for recordings of the validation split.

    python benchmarks/parity.py --manifest ../shared/data/manifest.jsonl --clips 100 --out results/parity.json

Each recording is encoded once; both runtimes describe it and answer a question about it, with greedy decoding, the
default. The divergence is the Kullback-Leibler divergence in nats between their distributions of the next token, for
every token of the text that torch generates. onnxruntime is the default on a CPU only while the mean is below 0.01 nats
a token and at least 0.97 of the texts are the same.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from run_record import run_record, write_results
from torch import Tensor

from pengi import Pengi
from pengi.data.manifest import read_manifest
from pengi.encoding import Encoded
from pengi.language_model import DecoderState
from pengi.templates import PROMPTS

MAX_TOKENS = 40
QUESTION = "what can be heard?"
MAX_DIVERGENCE = 0.01  # nats a token
MIN_SAME = 0.97


def read(model: Pengi, recording: Encoded, prompt: str) -> tuple[Tensor, DecoderState]:
    """Logits of the first token, and the state after the prefix."""
    generator = model._generator
    return generator.read([recording], [generator.prompting.own(recording, prompt)])


def along(model: Pengi, recording: Encoded, prompt: str, ids: Sequence[int] | None = None) -> tuple[list[int], Tensor]:
    """The most likely token at every step, and log-probabilities float32[T, V], for given tokens or for the most likely
    ones."""
    lm = model.model.language_model
    logits_BV, state = read(model, recording, prompt)
    best: list[int] = []
    found = []
    while True:
        found.append(logits_BV[0].log_softmax(-1))
        best.append(int(logits_BV[0].argmax()))
        length, last = len(best), best[-1]
        if length == (MAX_TOKENS if ids is None else len(ids)) or (ids is None and last == lm.end_id):
            return best, torch.stack(found)
        logits_BTV, state = lm.step(torch.tensor([[last if ids is None else ids[length - 1]]]), state)
        logits_BV = logits_BTV[:, -1]


def compared(in_torch: Pengi, in_onnx: Pengi, recording: Encoded, prompt: str) -> dict[str, Any]:
    ids, expected_TV = along(in_torch, recording, prompt)
    best, found_TV = along(in_onnx, recording, prompt, ids)
    divergence_T = (expected_TV.exp() * (expected_TV - found_TV)).sum(-1)
    texts = [in_torch.model.language_model.decode(ids)] * 2
    if best != ids:
        texts[1] = in_onnx.model.language_model.decode(along(in_onnx, recording, prompt)[0])
    return {"divergences": divergence_T.tolist(), "texts": texts}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    divergences = [value for row in rows for value in row["divergences"]]
    mean = statistics.fmean(divergences)
    same = statistics.fmean(row["texts"][0] == row["texts"][1] for row in rows)
    return {
        "texts": len(rows),
        "tokens": len(divergences),
        "mean_nats": round(mean, 5),
        "first_token_mean_nats": round(statistics.fmean(row["divergences"][0] for row in rows), 5),
        "max_nats": round(max(divergences), 4),
        "same_texts": round(same, 4),
        "other_texts": [row["texts"] for row in rows if row["texts"][0] != row["texts"][1]],
        "passes": mean < MAX_DIVERGENCE and same >= MIN_SAME,
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--model", default="pengi-mini", help="name of a model, or its folder")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--skip", type=int, default=0, help="clips that are left out first, to measure in parts")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    clips = [clip for clip in read_manifest(options.manifest) if clip.split == "val"]
    random.Random(0).shuffle(clips)
    in_torch, in_onnx = (Pengi.from_pretrained(options.model, device="cpu", runtime=name) for name in ("torch", "onnx"))
    rows: list[dict[str, Any]] = []
    try:
        for clip in clips[options.skip :][: options.clips]:
            recording = in_torch.encode(options.manifest.parent / clip.audio)
            for prompt in (PROMPTS["caption"][0], in_torch.question_prompt(QUESTION)):
                rows.append(compared(in_torch, in_onnx, recording, prompt))
            print(f"{clip.id}: {max(rows[-2]['divergences'] + rows[-1]['divergences']):.4f} nats", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; this is about the recordings so far", file=sys.stderr)
    write_results({**run_record(), "model": options.model, **summary(rows)}, options.out)


if __name__ == "__main__":
    main()
