"""The command as a process of its own: what it imports, what it prints where, how it ends."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "numpy", "soundfile", "av", "pydantic.main", "huggingface_hub")
SERVER = ("fastapi", "uvicorn", "gradio", "prometheus_client", "starlette")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pengi", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def processor_s(*arguments: str) -> float:
    """Processor time of a Python process, the better of two: files may have to be compiled first."""
    seconds = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, timeout=120, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


def test_help_is_quick() -> None:
    # Measured against what the command line is made of, for a slow or busy machine is not ours: half a second where
    # that takes a tenth.
    assert processor_s("-m", "pengi", "--help") < 5 * processor_s("-c", "import typer, rich.console, rich.table")


@pytest.mark.parametrize(
    ("imported", "unused"),
    [
        ("pengi, pengi.cli", (*HEAVY, *SERVER)),
        (
            "pengi.engine, pengi.runtime.decoder",
            ("transformers", "gradio", "fastapi", "peft", "accelerate", "sklearn", "scipy", "sympy", "onnx",
             "pengi.training", "pengi.serving"),
        ),
        ("pengi.serving.app, pengi.serving.server", ("gradio",)),
    ],
    ids=["the command line", "reading recordings", "a server without a page"],
)  # fmt: skip
def test_nothing_that_is_not_needed_is_imported(imported: str, unused: tuple[str, ...]) -> None:
    code = f"import sys, {imported}; print([name for name in {unused} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_version() -> None:
    assert re.fullmatch(r"pengi \d+\.\d+\.\d+\n", run("--version").stdout)


def test_models_lists_names_on_stdout() -> None:
    assert "smollm2-135m-instruct" in run("models").stdout
    rows = json.loads(run("models", "--json").stdout)
    assert {"name", "what", "licence", "download_mb", "source", "path"} == set(rows[0])


def test_pulling_an_unknown_name_is_one_sentence() -> None:
    result = run("pull", "yamnett")
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "did you mean 'yamnet'?" in result.stderr


def test_a_closed_pipe_is_a_sentence() -> None:
    script = """
from pengi.cli import app, console
@app.command()
@console.guarded
def flood() -> None:
    for _ in range(9999):
        console.print_text("x" * 99)
console.run_app(lambda: app(["flood"]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == "error: the output was closed before all of it was written\n"
    assert process.returncode == 141
