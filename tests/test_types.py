"""What a type checker sees of the public interface."""

from __future__ import annotations

SNIPPET = """
from pathlib import Path

from pengi import Pengi


def check(model: Pengi, paths: list[Path]) -> None:
    model.describe("a.wav").txt
    model.ask(paths, "what?")[0].cofidence
    model.classify(("dog", 3), ["dog"]).lable
    model.timeline(paths, on_error="return")[0].segments
    model.describe("a.wav", stile="paper")
    model.describe("a.wav", style="papers")
    reveal_type(model.embed(paths))
    reveal_type(model.tags("a.wav"))
"""
EXPECTED = (
    '8: error: "Description" has no attribute "txt"',
    '9: error: "Answer" has no attribute "cofidence"',
    'error: "Classification" has no attribute "lable"',
    'has no attribute "segments"',
)
