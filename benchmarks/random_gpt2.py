"""GPT-2 base with random weights, for benchmarks on machines without the published ones.

The standard deviations are about those of the trained weights. So the entropy of the next token is about 3 nats, as in
a trained model; after transformers' own initialisation it is that of a uniform distribution, which hides rounding.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from pengi.language_model import LanguageModel

_TABLES = {"transformer.wte.weight": 0.14, "transformer.wpe.weight": 0.12}
_MATRICES, _BIASES = 0.13, 0.15
_NORM, _LAST_NORM = 0.3, 1.3


@torch.no_grad()
def set_random(model: GPT2LMHeadModel, seed: int = 0) -> None:
    """Fill a GPT-2 with random weights of the scale of trained ones."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        weight.normal_(generator=generator)
        if weight.ndim == 2:
            weight.mul_(_TABLES.get(name, _MATRICES))
        elif name.endswith("bias"):
            weight.mul_(_BIASES)
        elif "ln_f" in name:
            weight.mul_(0.1).add_(_LAST_NORM)
        else:  # scales of norms differ much between dimensions
            weight.mul_(0.5).exp_().mul_(_NORM)


def write(folder: Path, config: GPT2Config | None = None) -> Path:
    """Write a random GPT-2 in Hugging Face layout, with the tokenizer of a tiny model, and return the folder.

    Args:
        folder: to write to.
        config: of the model; None means GPT-2 base.
    """
    model = GPT2LMHeadModel(GPT2Config() if config is None else config)
    set_random(model)
    model.save_pretrained(folder)
    LanguageModel.tiny().tokenizer.save(str(folder / "tokenizer.json"))
    return folder
