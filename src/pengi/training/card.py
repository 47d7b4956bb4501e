"""The model card that a training run writes beside its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pengi.config import ModelConfig
from pengi.data.manifest import Clip
from pengi.training.recipe import Recipe
from pengi.training.report import REPORT_FILE

NOT_NAMED = "not named"
"""The source or licence of clips that name none."""


def model_card(
    recipe: Recipe, model: ModelConfig, clips: Sequence[Clip], step: int, history: Sequence[Mapping[str, float]]
) -> str:
    """Markdown: the model's parts, its training data with licences, and the progress of training."""
    encoders = ", ".join(
        f"{branch.encoder} ({_trained(branch.trained, branch.frozen_layers)})" for branch in model.audio.values()
    )
    losses = [entry["val_loss"] for entry in history if "val_loss" in entry]
    lines = [
        f"# {model.name}",
        "",
        f"- audio encoders: {encoders}",
        f"- audio in the prompt: {_recording(model)}",
        f"- prompt: {_prompt(model)}",
        f"- language model: {model.language_model.name}, {_language_model(model)}",
        *([f"- fine-tuned from: {recipe.finetune.checkpoint}"] if recipe.finetune else []),
        *_steps(recipe, step, losses),
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


def _recording(model: ModelConfig) -> str:
    """The parts of a recording's prefix, in words."""
    mapped = [branch.encoder for branch in model.audio.values() if branch.mapper is not None]
    parts = [f"m1 behind {' and '.join(mapped)}"] if mapped else []
    if model.evidence is not None:
        kinds = {
            "tags": model.tagger is not None,
            "transcript": model.evidence.transcript,
            "descriptors": model.evidence.descriptors,
        }
        parts.append(f"as text: {', '.join(['length', *(kind for kind, is_read in kinds.items() if is_read)])}")
    return "; ".join(parts)


def _prompt(model: ModelConfig) -> str:
    if model.language_model.chat:
        return "in the chat template of the language model"
    return model.text.encoder or "token embeddings of the language model"


def _language_model(model: ModelConfig) -> str:
    lora = model.language_model.lora
    if lora is None:
        return "frozen"
    where = "" if lora.top_layers is None else f" in its last {lora.top_layers} layers"
    return f"frozen, with adapters of rank {lora.rank} (LoRA){where}"


def _steps(recipe: Recipe, step: int, losses: Sequence[float]) -> list[str]:
    if not recipe.training.max_steps:
        return [f"- training: new tags only, see {REPORT_FILE}"]
    lines = [
        f"- training: {step} of {recipe.training.max_steps} steps, {recipe.training.batch_size} clips with up to"
        f" {recipe.training.questions_per_clip} questions each, seed {recipe.training.seed}"
    ]
    scenes = recipe.data.scenes
    if scenes is not None:
        lines.append(f"- scenes without audio: the first {scenes.steps} steps, and {scenes.share:.0%} of the others")
    return [*lines, f"- loss on held-out clips: {losses[-1]:.3f}" if losses else "- not validated yet"]


def _trained(trained: bool, frozen_layers: int) -> str:
    if not trained:
        return "frozen"
    return f"trained from layer {frozen_layers} on" if frozen_layers else "trained"


def _source_rows(clips: Sequence[Clip]) -> list[str]:
    counts = Counter(clip.source for clip in clips)
    licences: dict[str, Counter[str]] = {}
    for clip in clips:
        # A composed clip has the licences of all its parts. They are counted one by one, not by combination.
        licences.setdefault(clip.source, Counter()).update(clip.license.split(" AND "))
    return [
        f"| {source or NOT_NAMED} | {count} | "
        f"{', '.join(name or NOT_NAMED for name, _ in licences[source].most_common())} |"
        for source, count in sorted(counts.items())
    ]
