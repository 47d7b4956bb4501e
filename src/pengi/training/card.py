"""The model card that a training run writes beside its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pengi.config import ModelConfig
from pengi.data.manifest import Clip
from pengi.training.recipe import Recipe


def model_card(
    recipe: Recipe, model: ModelConfig, clips: Sequence[Clip], step: int, history: Sequence[Mapping[str, float]]
) -> str:
    """Markdown: what the model is, what it was trained on under which licences, and how far training got."""
    encoders = ", ".join(
        f"{branch.encoder} ({_trained(branch.trained, branch.frozen_layers)})" for branch in model.audio
    )
    losses = [entry["val_loss"] for entry in history if "val_loss" in entry]
    lines = [
        f"# {model.name}",
        "",
        f"- audio encoders: {encoders}",
        f"- prompt: {model.text.encoder or 'token embeddings of the language model'}",
        f"- language model: {model.language_model.name}, {_language_model(model)}",
        *([f"- went on from: {recipe.finetune.checkpoint}"] if recipe.finetune else []),
        f"- training: {step} of {recipe.training.steps} steps, {recipe.training.batch_size} clips with up to"
        f" {recipe.training.questions_per_clip} questions each, seed {recipe.training.seed}",
        f"- loss per token on held-out clips: {losses[-1]:.3f}" if losses else "- not validated yet",
        "",
        "## Training data",
        "",
        f"{len(clips)} clips of split `{recipe.data.train_split}`.",
        "",
        "| source | clips | licences |",
        "|---|---|---|",
        *_source_rows(clips),
        "",
    ]
    return "\n".join(lines)


def _language_model(model: ModelConfig) -> str:
    lora = model.language_model.lora
    return "frozen" if lora is None else f"frozen, with adapters of rank {lora.rank} (LoRA)"


def _trained(trained: bool, frozen_layers: int) -> str:
    if not trained:
        return "frozen"
    return f"trained from layer {frozen_layers} on" if frozen_layers else "trained"


def _source_rows(clips: Sequence[Clip]) -> list[str]:
    counts = Counter(clip.source for clip in clips)
    licences: dict[str, Counter[str]] = {}
    for clip in clips:
        # A composed clip is under those of all its parts, and their combinations are too many to read.
        licences.setdefault(clip.source, Counter()).update(clip.license.split(" AND "))
    return [
        f"| {source} | {count} | {', '.join(name for name, _ in licences[source].most_common())} |"
        for source, count in sorted(counts.items())
    ]
