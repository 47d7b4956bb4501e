"""The vocabulary of a collection of training clips, and which tags each clip has.

A clip's labels are present tags. Other tags are not always absent: a clip of rain may contain wind without a label. So
the target of a clip and a tag is present, absent or unknown.

Shape suffixes: N clips, K tags.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pengi.conditioning.vocabulary import Tag, Vocabulary, word_stems
from pengi.data.label_overlap import holds_one_kind
from pengi.data.manifest import Clip, Label
from pengi.data.phrases import thing_of
from pengi.data.tasks import COMPOSED_DOMAIN

FOLDS = 5
"""Number of folds of training clips. Each fold is scored by a tagger that was fitted on the others. A composed clip is
mixed from recordings of one fold."""
MAX_UNLABELLED_PROBABILITY = 0.1
"""A tag that is not among a clip's labels is unknown, not absent, if the stock tagger's probability of its class is at
least this."""
MIN_RECORDINGS = 3
"""A kind of an AudioSet class with fewer labelled recordings is rare. Most out-of-fold detections of such tags are
wrong."""
SPEAKERS = (
    Tag("man", "speaker", ("men", "man speaking", "male voice", "male speech", "male")),
    Tag("woman", "speaker", ("women", "woman speaking", "female voice", "female speech", "female")),
    Tag("child", "speaker", ("children", "child speaking", "kid", "kid speaking"), "Child speech, kid speaking"),
)
"""Tags of who speaks, with the names that labels and attributes use for them."""
GROUPS_OF_ATTRIBUTES = {
    "instrument": "instrument",
    "genre": "genre",
    "keyword": "keyword",
    "digit": "keyword",
    "language": "language",
    "gender": "speaker",
}
_GROUPS_OF_CATEGORIES = {"instrument": "instrument", "music": "genre"}
_SPEECH = "speech"  # category of labels that mean only that somebody speaks, and text of their tag
# First and last of AudioSet's instruments and genres in the order of the stock tagger's classes.
_AUDIOSET_GROUPS = {
    "instrument": ("Musical instrument", "Scratching (performance technique)"),
    "genre": ("Pop music", "Scary music"),
}
_NOT_DETECTED = frozenset({"Silence"})  # measured by its level instead


def build_vocabulary(labels: Mapping[str, Label], clips: Sequence[Clip], classes: Sequence[str]) -> Vocabulary:
    """The tags of a collection: its labels, the values of its clips' attributes, and the stock tagger's other classes.

    Args:
        labels: wordings of the events, each with the nearest AudioSet class.
        clips: labelled clips.
        classes: AudioSet display names that the stock tagger knows.
    """
    tags: dict[str, Tag] = {tag.text: tag for tag in SPEAKERS}
    for label in labels.values():
        if label.category != _SPEECH:
            tag = _tag_of(label, classes)
            tags.setdefault(tag.text, tag)
    _add_classes(tags, classes)
    for clip in clips:
        for name, group in GROUPS_OF_ATTRIBUTES.items():
            value = str(clip.attributes.get(name, ""))
            if value and group != "speaker" and not _known(tags, value, group):
                tag = _value_tag(value, group, tags)
                tags.setdefault(tag.text, tag)
    recordings = [clip for clip in clips if clip.domain != COMPOSED_DOMAIN]
    return _with_rare(Vocabulary(tuple(tags.values())), labels, recordings)


def _with_rare(vocabulary: Vocabulary, labels: Mapping[str, Label], clips: Sequence[Clip]) -> Vocabulary:
    """The vocabulary, its rare tags marked, see :data:`MIN_RECORDINGS`."""
    names = _Names(vocabulary, labels)
    recordings: dict[int, set[str]] = {}
    for clip in clips:
        for index in names.present(clip):
            recordings.setdefault(index, set()).add(group_of(clip))
    return Vocabulary(
        tuple(
            replace(tag, is_rare=tag.audioset is not None and not tag.is_class and len(found) < MIN_RECORDINGS)
            for tag, found in ((tag, recordings.get(index, ())) for index, tag in enumerate(vocabulary.tags))
        )
    )


def _add_classes(tags: dict[str, Tag], classes: Sequence[str]) -> None:
    """Add the stock tagger's classes that no tag means.

    If exactly one tag's name contains the class's name, such as "wind blowing", the class becomes another name of that
    tag. If several do, such as "door creaking" and "door slamming", the class becomes a separate tag.
    """
    means = {tag.audioset for tag in tags.values() if tag.is_class}
    for index, name in enumerate(classes):
        if name in means or name in _NOT_DETECTED:
            continue
        added = _stock_tag(name, _audioset_group(index, classes), tags)
        kinds = [tag for tag in tags.values() if tag.audioset == name and tag.group == "sound" and _names(tag, name)]
        if len(kinds) == 1:
            (kind,) = kinds
            tags[kind.text] = replace(kind, phrases=(*kind.phrases, added.text))
        else:
            tags.setdefault(added.text, added)


def _names(tag: Tag, class_name: str) -> bool:
    """Whether a tag's text contains all words of one of a class's names."""
    parts = [part.split("(")[0] for part in class_name.split(",")]
    return any(set(word_stems(part)) <= set(word_stems(tag.text)) for part in parts)


def _tag_of(label: Label, classes: Sequence[str]) -> Tag:
    group = _GROUPS_OF_CATEGORIES.get(label.category, "sound")
    phrases = [label.phrase]
    if (thing := thing_of(label)) is not None:
        phrases.append(thing)
    if group == "genre":
        phrases.append(label.label.removesuffix(" music"))
    # With the case of answers ("French horn"), because the language model copies a tag better than it changes its case.
    written = re.search(re.escape(label.label), label.phrase, re.IGNORECASE)
    text = written[0] if written else label.label
    names = tuple(dict.fromkeys(phrase for phrase in phrases if phrase != text))
    return Tag(text, group, names, label.audioset if label.audioset in classes else None)


def _value_tag(value: str, group: str, tags: Mapping[str, Tag]) -> Tag:
    """The tag of an attribute's value. A keyword is quoted if a sound has its name: the word "dog" is not a dog."""
    is_other = group == "keyword" and value in tags
    return Tag(f'"{value}"', group, (value,)) if is_other else Tag(value, group)


def _stock_tag(name: str, group: str, tags: Mapping[str, Tag]) -> Tag:
    """An AudioSet class by the first part of its display name: "Baby cry, infant cry" -> "baby cry"."""
    first, *others = (part.strip().lower() for part in name.split(","))
    text = first.split("(")[0].strip()
    if text in tags:
        text = name.lower()
    return Tag(text, group, tuple(other for other in others if other != "etc."), name)


def _audioset_group(index: int, classes: Sequence[str]) -> str:
    for group, (first, last) in _AUDIOSET_GROUPS.items():
        if first in classes and classes.index(first) <= index <= classes.index(last):
            return group
    return "sound"


def _known(tags: Mapping[str, Tag], value: str, group: str) -> bool:
    return any(tag.group == group and value in (tag.text, *tag.phrases) for tag in tags.values())


@dataclass(frozen=True)
class TagTargets:
    """Which tags clips have.

    Attributes:
        present_NK: ``bool[N, K]``, True where a tag is there.
        known_NK: ``bool[N, K]``, True where ``present_NK`` is known.
        weight_N: ``float32[N]``: how much each clip counts; all count the same if not given.
    """

    present_NK: NDArray[np.bool_]
    known_NK: NDArray[np.bool_]
    weight_N: NDArray[np.float32] | None = None

    def weights(self) -> NDArray[np.float32]:
        """``weight_N``, ones if it was not given."""
        return np.ones(len(self.present_NK), dtype=np.float32) if self.weight_N is None else self.weight_N

    def of(self, rows: Sequence[int]) -> TagTargets:
        """The targets of some of the clips."""
        weight_N = None if self.weight_N is None else self.weight_N[rows]
        return TagTargets(self.present_NK[rows], self.known_NK[rows], weight_N)


def tag_targets(
    clips: Sequence[Clip], vocabulary: Vocabulary, labels: Mapping[str, Label], stock_NK: NDArray[np.float32]
) -> TagTargets:
    """Targets of clips.

    Args:
        clips: N of them.
        vocabulary: K tags.
        labels: wordings of the clips' events.
        stock_NK: ``float32[N, K]``: probability of each tag's class by the stock tagger, 0 of tags without one.
    """
    names = _Names(vocabulary, labels)
    present_NK = np.zeros((len(clips), len(vocabulary)), dtype=np.bool_)
    known_NK = stock_NK < MAX_UNLABELLED_PROBABILITY
    for row, clip in enumerate(clips):
        known_NK[row] |= names.other_kinds(clip)
        known_NK[row] &= ~names.unknown(clip)
        present = names.present(clip)
        known_NK[row, names.alike(present)] = False
        present_NK[row, present] = True
        known_NK[row, present] = True
    return TagTargets(present_NK, known_NK, group_weights(clips))


def group_of(clip: Clip) -> str:
    """The name of a clip's group: one recording, speaker or track, also across manifests."""
    return (clip.group or clip.id).removeprefix(f"{clip.corpus}/")


def folds_of(groups: Sequence[str], folds: int = FOLDS) -> NDArray[np.int64]:
    """The fold of each clip, ``int64[N]``, by the name of its group; the same every time."""
    return np.array([zlib.crc32(group.encode()) % folds for group in groups], dtype=np.int64)


def group_weights(clips: Sequence[Clip]) -> NDArray[np.float32]:
    """``float32[N]``: one over the square root of the size of each clip's group; 900 clips of one voice count as 30."""
    counts = Counter(map(group_of, clips))
    return np.array([counts[group_of(clip)] ** -0.5 for clip in clips], dtype=np.float32)


class _Names:
    """Finds the tags of a clip's labels and attributes."""

    def __init__(self, vocabulary: Vocabulary, labels: Mapping[str, Label]) -> None:
        self.vocabulary, self.labels = vocabulary, labels
        self._by_group: dict[tuple[str, str], int] = {}
        for index, tag in enumerate(vocabulary.tags):
            for name in (tag.text, *tag.phrases):
                self._by_group.setdefault((tag.group, name.casefold()), index)
        self._groups_K = np.array([tag.group for tag in vocabulary.tags])
        stems = [frozenset(word_stems(tag.text)) for tag in vocabulary.tags]
        self._wider = [
            [other for other, others in enumerate(stems) if other != index and (others < words or words < others)]
            for index, words in enumerate(stems)
        ]
        self._same_class: dict[str, list[int]] = {}
        for index, tag in enumerate(vocabulary.tags):
            if tag.audioset:
                self._same_class.setdefault(tag.audioset, []).append(index)
        self._kind_of_K = np.array(
            [
                self.labels[tag.text].category if tag.text in self.labels and tag.audioset and not tag.is_class else ""
                for tag in vocabulary.tags
            ]
        )

    def present(self, clip: Clip) -> list[int]:
        """Indices of the tags that a clip has."""
        found = [self._event(event) for event in clip.events]
        for name, group in GROUPS_OF_ATTRIBUTES.items():
            value = str(clip.attributes.get(name, "")).casefold()
            found.append(self._by_group.get((group, value)))
        if self.is_spoken(clip):
            found.append(self._by_group.get(("sound", _SPEECH)))
        return sorted({index for index in found if index is not None})

    def _event(self, event: str) -> int | None:
        for group in ("sound", "instrument", "genre", "speaker"):
            if (index := self._by_group.get((group, event.casefold()))) is not None:
                return index
        return None

    def is_spoken(self, clip: Clip) -> bool:
        """Whether somebody speaks in a clip, by its labels."""
        return any(label.category == _SPEECH for label in self._labels_of(clip))

    def _labels_of(self, clip: Clip) -> list[Label]:
        return [self.labels[event] for event in clip.events if event in self.labels]

    def alike(self, present: Sequence[int]) -> list[int]:
        """Tags that may be present because a present tag is a kind of them, or they are kinds of it: "footsteps" and
        "footsteps on gravel", or "drum" for a djembe."""
        found = [other for index in present for other in self._wider[index]]
        for index in present:
            name = self.vocabulary.tags[index].audioset
            if name is not None:
                found += [other for other in self._same_class[name] if self.vocabulary.tags[other].is_class]
        return found

    def other_kinds(self, clip: Clip) -> NDArray[np.bool_]:
        """``bool[K]``: tags that are one kind of their AudioSet class, of the same category as the clip's sound.

        They are absent if no label names them, even if the stock tagger detects their class: it detects a bird in a
        recording of a crow, but that is not a penguin.
        """
        categories = [label.category for label in self._labels_of(clip) if holds_one_kind(label)]
        return np.isin(self._kind_of_K, categories)

    def unknown(self, clip: Clip) -> NDArray[np.bool_]:
        """``bool[K]``: tags of groups that the clip's labels do not determine."""
        has = {group for name, group in GROUPS_OF_ATTRIBUTES.items() if name in clip.attributes}
        has |= {self.vocabulary.tags[index].group for index in self.present(clip)}
        unknown = set()
        if self.is_spoken(clip):
            unknown = {"language", "speaker"} | ({"keyword"} if (clip.duration_s or 0.0) > 2.0 else set())
        elif "genre" in has:
            unknown = {"instrument", "speaker", "language"}
        elif "instrument" not in has:
            may_be_voice = any(label.category in ("human", "scene") for label in self._labels_of(clip))
            unknown = {"speaker", "language"} if may_be_voice else set()
        return np.isin(self._groups_K, sorted(unknown - has))
