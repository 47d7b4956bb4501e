"""Evidence: what is measured in a recording, and the text that gives it to the language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pengi.config import EvidenceConfig

STRENGTHS = ((0.7, "sure"), (0.4, "likely"), (0.1, "maybe"), (0.03, "unlikely"))
"""Lowest calibrated probability of each strength word."""


@dataclass(frozen=True)
class DetectedTag:
    """A tag, its calibrated probability, and the stretches in which it is detected, in seconds."""

    text: str
    group: str
    probability: float
    spans: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What is measured in one recording.

    Attributes:
        duration_s: its length in seconds.
        tags: those that are kept, of any group, the likeliest first.
        transcript: what is said; empty if nothing is, None if no transcriber ran.
        descriptors: finished sentences about level, pitch and tempo.
    """

    duration_s: float
    tags: tuple[DetectedTag, ...] = ()
    transcript: str | None = None
    descriptors: tuple[str, ...] = ()


def strength(probability: float) -> str:
    """The word for a calibrated probability."""
    return next((word for lowest, word in STRENGTHS if probability >= lowest), "no")


def evidence_text(evidence: Evidence, config: EvidenceConfig) -> str:
    """The text that the language model reads about a recording."""
    kept = [tag for tag in evidence.tags if tag.probability >= config.min_probability][: config.max_tags]
    listed = ", ".join(f"{tag.text} ({strength(tag.probability)})" for tag in kept)
    sentences = [f"Heard in {evidence.duration_s:.0f} s: {listed or 'nothing clear'}."]
    if config.transcript and evidence.transcript is not None:
        sentences.append(f'Said: "{evidence.transcript}".' if evidence.transcript else "Nothing is said.")
    if config.descriptors:
        sentences += evidence.descriptors
    return " ".join(sentences)


def queried_text(tags: Sequence[DetectedTag]) -> str:
    """The line about the tags that a prompt names, however improbable; empty if it names none."""
    if not tags:
        return ""
    return f"Asked about: {', '.join(f'{tag.text} ({strength(tag.probability)})' for tag in tags)}.\n"
