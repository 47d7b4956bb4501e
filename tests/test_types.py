"""What a type checker sees of the public interface."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pengi

SNIPPET = """
from pathlib import Path
from pengi import Pengi

def check(model: Pengi, paths: list[Path]) -> None:
    model.describe("a.wav").txt
    model.ask(paths, "what?")[0].cofidence
    model.classify({"array": [0.1], "sampling_rate": 8000}, ["dog"]).lable
    model.timeline(paths, on_error="return")[0].segments
    model.tags(b"", on_error="return").tags
    model.describe("a.wav", stile="paper")
    model.describe("a.wav", style="papers")
    model.describe("a.wav").text, model.ask(paths, ["what?"])[0].confidence, model.transcribe(paths)[0].segments
"""
EXPECTED = {
    6: '"Description" has no attribute "txt"',
    7: '"Answer" has no attribute "cofidence"',
    8: '"Classification" has no attribute "lable"',
    9: '"PengiError" of "Timeline | PengiError" has no attribute "segments"',
    10: '"PengiError" of "Tags | PengiError" has no attribute "tags"',
    11: "No overload variant",
    12: "No overload variant",
}
"""Line of the snippet -> its error."""
CONFIG = """
[mypy]
follow_imports = silent
[mypy-numpy.*,torch.*,transformers.*,tokenizers.*,pydantic.*,safetensors.*,gguf.*,onnx.*,av.*,soxr.*,rich.*]
follow_imports = skip
"""
"""What is large and plays no part is left out, for speed."""


def test_a_type_checker_sees_a_misspelled_field_and_option(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "snippet.py").write_text(SNIPPET)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", "snippet.py"]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(Path(pengi.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = dict(line.split(": error: ", 1) for line in run.stdout.splitlines() if ": error: " in line)
    found = {int(origin.rpartition(":")[2]): message for origin, message in errors.items()}
    assert found.keys() == EXPECTED.keys(), run.stdout + run.stderr
    for line, message in EXPECTED.items():
        assert message in found[line]
