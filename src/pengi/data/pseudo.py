"""Pseudo-labels from stock YAMNet: tags of real clips, and points of its embedding space that stand for a class.

Most of AudioSet's 521 classes have no labelled clip in a small collection, but YAMNet's own classifier says in which
direction of its embedding space each class lies. A real embedding moved in that direction until the class's logit is
high is a training example whose answer is the class's name: so the mapper learns to say what the encoder can hear.

Shape suffixes: T audio tokens, D features of YAMNet's embedding.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pengi.data.manifest import Label
from pengi.encoders.yamnet import YamnetTagger
from pengi.vocabulary import word_stems

TAG_THRESHOLD = 0.12
MOST_TAGS = 4
# Logits drawn for a moved embedding: from "rather not" to "certainly", as far as real clips of a class reach.
LOWEST_LOGIT, HIGHEST_LOGIT = -1.0, 4.0
SILENCE = "Silence"
FEWEST_CLIPS = 5  # with so many a label's own scale and bias tell it from others of its class
# Of AudioSet's wider classes those that one label alone names as its nearest.
WIDE_CLASSES = frozenset(
    {"Bird", "Mallet percussion", "Plucked string instrument", "Rodents, rats, mice", "Sound effect"}
)
PASSES = 12  # 8 are the most that AudioSet's classes were seen to need


def class_words(display_name: str) -> str:
    """An AudioSet display name as a person would say it: "Baby cry, infant cry" -> "baby cry"."""
    return display_name.split(",")[0].split("(")[0].strip().lower()


def class_labels(classes: tuple[str, ...], labels: Mapping[str, Label]) -> dict[str, Label]:
    """For each AudioSet class the label that says it, the nearest in letters of several; else its own words.

    The labels file names for each label the nearest class, which may be a far wider one: a hyena is an "Animal", but
    what sounds like an animal is seldom a hyena. So a label says a class if it has a word of the class's name, or if it
    is the only label of a class that is no wide one ("Shatter" is "glass breaking").
    """
    by_class = _by_class(labels)
    chosen = {}
    for name in classes:
        candidates = [label for label in by_class.get(name, ()) if _says(label, name, by_class)]
        if candidates:
            chosen[name] = max(candidates, key=lambda label: _likeness(label.label, name))
        else:
            words = class_words(name)
            chosen[name] = Label(label=words, phrase=words, sentence=f"The sound of {words}.", audioset=name)
    return chosen


def class_vocabulary(
    classes: tuple[str, ...], labels: Mapping[str, Label], clips: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Words for what a classifier hears, and the class each belongs to: one word for every class, and every label that
    says its class (see :func:`class_labels`) or that is known from recordings.

    A class has several words if several labels name it; a label whose class is not among them has no word. Of speech a
    class has one word only: what is spoken, a coffee order or a story, a classifier of sounds cannot tell. Silence has
    none: it is heard between and behind sounds, and is never what a recording is of.

    Args:
        classes: display names of the classifier's.
        labels: wordings, each with the class nearest to it.
        clips: label -> how many training clips are about it; with :data:`FEWEST_CLIPS` it is known from recordings.
    """
    index = {name: place for place, name in enumerate(classes)}
    words = {label.label: index[name] for name, label in class_labels(classes, labels).items() if name != SILENCE}
    by_class = _by_class(labels)
    more = {
        label.label: index[name]
        for name, found in by_class.items()
        for label in found
        if name in index
        and label.category != "speech"
        and (_says(label, name, by_class) or (clips or {}).get(label.label, 0) >= FEWEST_CLIPS)
    }
    return {**more, **words}


def _by_class(labels: Mapping[str, Label]) -> dict[str, list[Label]]:
    found: dict[str, list[Label]] = {}
    for label in labels.values():
        if label.audioset:
            found.setdefault(label.audioset, []).append(label)
    return found


def _says(label: Label, class_name: str, by_class: Mapping[str, list[Label]]) -> bool:
    """Whether a label means about as much as the class that it names as its nearest."""
    if set(word_stems(class_name)) & {*word_stems(label.label), *word_stems(label.phrase)}:
        return True
    return len(by_class[class_name]) == 1 and class_name not in WIDE_CLASSES


def _likeness(label: str, class_name: str) -> float:
    return difflib.SequenceMatcher(None, label.lower(), class_name.lower()).ratio()


def tags_of(logits_TC: Tensor, classes: tuple[str, ...]) -> tuple[str, ...]:
    """AudioSet tags of a clip, the surest first: classes whose mean probability over the clip is high enough."""
    probability_C = logits_TC.sigmoid().mean(0)
    best = probability_C.topk(MOST_TAGS)
    pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return tuple(dict.fromkeys(class_words(classes[index]) for value, index in pairs if value >= TAG_THRESHOLD))


class ClassDirections(nn.Module):
    """Moves embeddings of YAMNet along the weights of its own classifier."""

    weight_CD: Tensor
    bias_C: Tensor

    def __init__(self, tagger: YamnetTagger) -> None:
        super().__init__()
        self.classes = tagger.classes
        self.register_buffer("weight_CD", tagger.head.weight.detach().clone())
        self.register_buffer("bias_C", tagger.head.bias.detach().clone())

    def move(self, tokens_TD: Tensor, class_index: int, logit: float) -> Tensor:
        """The nearest embeddings at which the class's logit reaches ``logit``; those beyond it stay where they are.

        Features of YAMNet are means of rectified values, so none may become negative. What would is held at zero, and
        the way goes on along the other weights: a few passes, since most of a class's weights are negative.
        """
        weight_D, bias = self.weight_CD[class_index], self.bias_C[class_index]
        moved_TD = tokens_TD.float()
        # In bfloat16 the logit would be off by more than the last passes gain.
        with torch.autocast(moved_TD.device.type, enabled=False):
            for _ in range(PASSES):
                missing_T = (logit - moved_TD @ weight_D - bias).clamp(min=0)
                free_TD = (moved_TD > 0) | (weight_D > 0)
                step_T = missing_T / (free_TD * weight_D.square()).sum(1)
                moved_TD = (moved_TD + step_T[:, None] * weight_D).clamp(min=0)
        return moved_TD

    def shift(self, tokens_TD: Tensor, moved_TD: Tensor) -> Tensor:
        """By how much moving its tokens changes the class logits of each: ``float32[T, C]``."""
        with torch.autocast(tokens_TD.device.type, enabled=False):
            return (moved_TD.float() - tokens_TD.float()) @ self.weight_CD.T

    def draw(self, tokens_TD: Tensor, class_index: int, generator: torch.Generator) -> Tensor:
        """Move a random stretch of at least half of the tokens to a random logit; the rest stays as background."""
        count = len(tokens_TD)
        length = int(torch.randint((count + 1) // 2, count + 1, (), generator=generator))
        start = int(torch.randint(0, count - length + 1, (), generator=generator))
        share = float(torch.rand((), generator=generator))
        moved_TD = tokens_TD.clone()
        logit = LOWEST_LOGIT + share * (HIGHEST_LOGIT - LOWEST_LOGIT)
        moved_TD[start : start + length] = self.move(tokens_TD[start : start + length], class_index, logit)
        return moved_TD
