"""What a type checker sees of the public interface."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pengi

SNIPPET = """
from pathlib import Path
from pengi import Pengi
from pengi.serving.inference_worker import InferenceWorker

def check(model: Pengi, worker: InferenceWorker, paths: list[Path]) -> None:
    model.describe("a.wav").txt
    model.ask(paths, "what?")[0].cofidence
    model.classify({"array": [0.1], "sampling_rate": 8000}, ["dog"]).lable
    model.timeline(paths, on_error="return")[0].segments
    model.tags(b"", on_error="return").tags
    model.describe("a.wav", stile="paper")
    model.describe("a.wav", style="papers")
    worker.ask("a.wav", "what?").cofidence
    worker.timeline("a.wav", windows=1.0)
    model.describe("a.wav").text, model.ask(paths, ["what?"])[0].confidence, model.transcribe(paths)[0].segments
"""
EXPECTED = {
    7: '"Description" has no attribute "txt"',
    8: '"Answer" has no attribute "cofidence"',
    9: '"Classification" has no attribute "lable"',
    10: '"PengiError" of "Timeline | PengiError" has no attribute "segments"',
    11: '"PengiError" of "Tags | PengiError" has no attribute "tags"',
    12: "No overload variant",
    13: "No overload variant",
    14: '"Answer" has no attribute "cofidence"',
    15: 'Unexpected keyword argument "windows"',
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


@pytest.mark.parametrize(
    "file", ["engine.py", "streaming.py", "results.py", "serving/queries.py", "serving/inference_worker.py"]
)
def test_public_signatures_have_exact_types(file: str) -> None:
    source = Path(pengi.__file__).parent / file
    for function in _public_functions(ast.parse(source.read_text(encoding="utf-8"))):
        arguments = [*function.args.args, *function.args.kwonlyargs, function.args.vararg, function.args.kwarg]
        given = [argument.annotation for argument in arguments if argument is not None]
        types = [ast.unparse(annotation) for annotation in [*given, function.returns] if annotation is not None]
        assert not [text for text in types if "Any" in text], (file, function.name)


def _public_functions(node: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for item in node.body:
        if isinstance(item, ast.ClassDef) and not item.name.startswith("_"):
            yield from _public_functions(item)
        elif isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)) and not item.name.startswith("_"):
            yield item
