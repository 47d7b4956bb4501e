"""Ray Data: the same rows as in this process, and a job that goes on from one to the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.jobs import rows_of, timeless
from pengi.errors import InputError, PengiError
from pengi.jobs import cluster, runner
from pengi.jobs.cluster import Actors
from pengi.jobs.inputs import JobInput, Listing
from pengi.jobs.runner import Execution
from pengi.jobs.tasks import Job

pytest.importorskip("ray", reason="Ray is not installed (pengi[cluster])")


@pytest.fixture(autouse=True)
def processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processors for Ray, whatever the machine has: enough for two actors, and as many workers as are needed."""
    import ray

    begin = ray.init
    monkeypatch.setattr(ray, "init", lambda **options: begin(num_cpus=2, object_store_memory=100_000_000, **options))


def test_rows_are_those_of_this_process(
    tiny_folder: Path, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (sounds / b"caf\xe9.wav".decode("utf-8", "surrogateescape")).write_bytes((sounds / "1.wav").read_bytes())
    job = Job("classify", labels=("dog", "rain", "siren"))
    local = Execution(str(tiny_folder), device="cpu", batch_size=2, workers=2)
    runner.run(Listing("sounds"), job, tmp_path / "local.jsonl", local)
    out = tmp_path / "ray.jsonl"
    runner.run(Listing("sounds", limit=2), job, out, local)
    begun = out.read_bytes()
    counts = runner.run(Listing("sounds"), job, out, Execution(**vars(local) | {"actors": Actors(count=2, cpus=1)}))
    assert (counts.known, counts.written, counts.rows, counts.failed) == (2, 8, 10, 1)
    assert out.read_bytes().startswith(begun)
    expected, found = timeless(rows_of(tmp_path / "local.jsonl")), timeless(rows_of(out))
    for row in expected:  # the last digits of a score depend on the batch
        row["scores"] = [{**score, "score": pytest.approx(score["score"], rel=1e-3)} for score in row["scores"]]
    assert found == expected


def test_more_actors_than_fit_are_refused(tiny_folder: Path) -> None:
    work = cluster.ActorSettings(Job("embed"), str(tiny_folder), "", "cpu", "/", 2, 1)
    with pytest.raises(InputError, match="9 actors with 1 CPUs and 0 GPUs each are more than this machine's 2 CPUs"):
        next(cluster.cluster_rows([JobInput("a", "a.wav")], work, Actors(count=9, cpus=1)))


def test_an_actor_says_what_it_lacks_instead_of_dying(tiny_folder: Path) -> None:
    """An actor that fails as it starts would be started again without end."""
    table = next(cluster._blocks([JobInput("a", "a.wav")], 2, 1))
    for name, message in ((str(tiny_folder), "has a different model"), ("nonsense", "nonsense")):
        work = cluster.ActorSettings(Job("embed"), name, "a hash", "cpu", "/", 2, 1)
        (answer,) = cluster.Actor(work)(table)
        assert message in answer["error"].to_pylist()[0]


@pytest.mark.parametrize("options", [{"count": 0}, {"cpus": 0.0}, {"gpus": -1.0}])
def test_actors_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(PengiError):
        Actors(**options)


def names(count: int) -> Iterator[JobInput]:
    return (JobInput(str(index), f"{index}.wav") for index in range(count))


def test_blocks_share_a_short_list_and_grow_with_a_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(block) for block in cluster._blocks(names(7), batch_size=4, count=3)] == [3, 3, 1]
    monkeypatch.setattr(cluster, "BLOCKS_OF_ONE_SIZE", 2)
    monkeypatch.setattr(cluster, "MAX_BLOCK_ROWS", 30)
    blocks = list(cluster._blocks(names(200), batch_size=2, count=2))
    assert [len(block) for block in blocks] == [8, 8, 16, 16, 30, 30, 30, 30, 30, 2]
    found = [cluster._item(row) for block in blocks for row in block.to_pylist()]
    assert found == list(names(200))
