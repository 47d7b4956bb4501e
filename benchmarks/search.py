"""Measures search: how often labels and captions find their clips, and how fast it is with a million vectors.

    python benchmarks/search.py recall --manifest ../shared/data/manifest.jsonl --out results/search-recall.json
    python benchmarks/search.py scale --rows 1000000 --out results/search-scale.json

``recall`` indexes all clips of a split. A label query is a distinct value among the clips' events and their instrument,
genre, digit, keyword, gender, language and emotion, in the words of the manifest ("dog barking", "electric guitar");
the clips that have the value are relevant. A caption query is a caption of the manifest (relevant: the clips that have
it) or, if the manifest's folder has a ``labels.jsonl``, the sentence of a label ("A dog barks.", relevant: the clips
with the label). R@k is the share of queries with at least one relevant clip among the first k. Queries about sounds
(events, instruments, genres) and about speech (the other attributes) are counted separately, since a description says
"someone is speaking", not what is said. For a recording as a query (``like``), clips with the same first event from
other groups are relevant.

``scale`` writes random vectors around 4,096 centres, with the dimensions of pengi-mini, and texts of random words. It
times the single searches of a query, then a complete query, with the table on disk; the table is deleted afterwards.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CUTS = (1, 5, 10)
SOUND = ("instrument", "genre")
SPEECH = ("digit", "keyword", "gender", "language", "emotion")
CENTRES, SPREAD = 4096, 0.7
CHUNK = 20_000
TIMED, COMPARED = 100, 20
WORDS = [
    f"{stem}{end}" for stem in ("rain", "dog", "bell", "wind", "horn", "drum", "bird", "door") for end in ("", "s")
]


def label_queries(clips: Sequence[Any]) -> dict[str, tuple[str, set[int]]]:
    """Query -> its kind and the indices of the relevant clips."""
    kinds: dict[str, str] = {}
    relevant: dict[str, set[int]] = defaultdict(set)
    for index, clip in enumerate(clips):
        said = [(event, "sound labels") for event in clip.events]
        for names, kind in ((SOUND, "sound labels"), (SPEECH, "speech labels")):
            said += [(str(clip.attributes[name]), kind) for name in names if name in clip.attributes]
        for query, kind in said:
            kinds.setdefault(query, kind)
            relevant[query].add(index)
    return {query: (kinds[query], positions) for query, positions in relevant.items()}


def caption_queries(clips: Sequence[Any], labels: dict[str, Any]) -> dict[str, tuple[str, set[int]]]:
    """Captions of the manifest and sentences of its labels, as :func:`label_queries`."""
    queries: dict[str, tuple[str, set[int]]] = {}
    for index, clip in enumerate(clips):
        for caption in clip.captions:
            queries.setdefault(caption, ("captions", set()))[1].add(index)
        for event in clip.events:
            if event in labels:
                queries.setdefault(labels[event].sentence, ("label sentences", set()))[1].add(index)
    return queries


def recall_table(
    queries: dict[str, tuple[str, set[int]]], search: Callable[[str], list[int]]
) -> dict[str, dict[str, float]]:
    """R@1, 5 and 10 for each kind of query."""
    hits: dict[str, list[list[bool]]] = defaultdict(list)
    for query, (kind, relevant) in queries.items():
        found = [index in relevant for index in search(query)]
        hits[kind].append([any(found[:cut]) for cut in CUTS])
    return {
        kind: {"queries": len(rows)} | {f"R@{cut}": round(float(np.mean([row[index] for row in rows])), 4)
        for index, cut in enumerate(CUTS)}
        for kind, rows in hits.items()
    }  # fmt: skip


def like_recall(clips: Sequence[Any], search: Callable[[int], list[int]]) -> dict[str, float]:
    """R@1, 5 and 10 of recordings as queries, about those that have a relevant clip in another group."""
    rows = []
    for index, clip in enumerate(clips):
        others = [other for other in clips if other.group != clip.group and other.events[:1] == clip.events[:1]]
        if clip.events and others:
            found = [found for found in search(index) if clips[found].group != clip.group]
            rows.append([any(clips[other].events[:1] == clip.events[:1] for other in found[:cut]) for cut in CUTS])
    shares = {f"R@{cut}": [row[index] for row in rows] for index, cut in enumerate(CUTS)}
    return {"queries": len(rows)} | {name: round(float(np.mean(hits)), 4) for name, hits in shares.items() if hits}


def measure_recall(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Index the clips and ask for them."""
    from pengi import Pengi
    from pengi.data.manifest import read_labels, read_manifest
    from pengi.retrieval import Collection
    from pengi.retrieval.collection import SEARCH_MODES, SearchMode

    clips = [clip for clip in read_manifest(options.manifest) if clip.split == options.split]
    if options.limit:
        clips = [clips[int(index)] for index in np.random.default_rng(0).permutation(len(clips))[: options.limit]]
    root = options.manifest.parent
    index_of = {str((root / clip.audio).resolve()): index for index, clip in enumerate(clips)}
    engine = Pengi.from_pretrained(options.model)
    collection = Collection.open(folder / "index", engine=engine, create=True)
    started = time.monotonic()
    changes = collection.add(list(index_of), engine)
    seconds = time.monotonic() - started
    labels = root / "labels.jsonl"
    queries = label_queries(clips) | caption_queries(clips, read_labels(labels) if labels.is_file() else {})

    def search(mode: SearchMode) -> Callable[[str], list[int]]:
        return lambda query: [index_of[hit.path] for hit in collection.search(query, mode=mode, limit=max(CUTS))]

    def like(index: int) -> list[int]:
        recording = root / clips[index].audio
        return [index_of[hit.path] for hit in collection.search(like=recording, limit=max(CUTS) + 40)]

    return {
        "model": options.model,
        "clips": len(clips),
        "windows": len(collection),
        "failed": len(changes.failed),
        "indexing_s": round(seconds, 1),
        "disk_bytes": disk_bytes(folder),
        "text queries": {mode: recall_table(queries, search(mode)) for mode in SEARCH_MODES},
        "like": like_recall(clips, like) if options.like else "not run: --like",
    }


def synthetic(rows: int, info: Any) -> Iterator[tuple[dict[str, Any], dict[str, NDArray[np.float16]]]]:
    """Parts of a table: plain columns, and vectors around centres that the columns of a row share."""
    generator = np.random.default_rng(0)
    dims = info.dims
    centres = {name: generator.standard_normal((CENTRES, dim), dtype=np.float32) for name, dim in dims.items()}
    noise = {name: SPREAD * generator.standard_normal((CHUNK, dim), dtype=np.float32) for name, dim in dims.items()}
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        which = generator.integers(0, CENTRES, count)
        # Noise is drawn once and shuffled: two rows share their noise only if they are in different chunks.
        vectors = {name: centres[name][which] + generator.permutation(noise[name])[:count] for name in dims}
        texts = [" ".join(WORDS[word] for word in row) for row in generator.integers(0, len(WORDS), (count, 6))]
        numbers = np.arange(start, start + count)
        columns = {
            "path": [f"/synthetic/{number:07d}.wav" for number in numbers],
            "start_s": np.zeros(count),
            "end_s": np.full(count, 10.0),
            "duration_s": generator.uniform(1, 10, count),
            "text": texts,
            "tags": [text.split()[:2] for text in texts],
            "document": texts,
            "size": numbers,
            "mtime_ns": numbers,
            "sha256": [f"{number:064x}" for number in numbers],
        }
        scaled = {name: values / np.linalg.norm(values, axis=1, keepdims=True) for name, values in vectors.items()}
        yield columns, {name: values.astype(np.float16) for name, values in scaled.items()}


def measure_scale(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build a table of random rows and time what a query does."""
    from pengi.retrieval.table import IndexInfo, RecordingsTable

    info = IndexInfo("synthetic", "", text_dim=384, tags_dim=617, audio_dim=1929)
    table = RecordingsTable.create(str(folder / "index"), info)
    table.prepare()
    started = time.monotonic()
    probes: dict[str, list[NDArray[np.float32]]] = {name: [] for name in info.dims}
    for columns, vectors in synthetic(options.rows, info):
        table.add_columns(columns | vectors)
        for name, values in vectors.items():
            near = values[: TIMED - len(probes[name])].astype(np.float32)
            probes[name] += list(near + 0.02 * np.random.default_rng(1).standard_normal(near.shape, dtype=np.float32))
    written_s = time.monotonic() - started
    print(f"written in {written_s:.0f} s", flush=True)
    table.tidy(finished=True)
    indexed_s = time.monotonic() - started - written_s
    print(f"indexed in {indexed_s:.0f} s", flush=True)
    texts = [" ".join(WORDS[(index * step) % len(WORDS)] for step in (1, 3, 7)) for index in range(TIMED)]
    searches: dict[str, list[Callable[[], Any]]] = {"bm25": [_asking(table.by_words, text) for text in texts]}
    searches |= {name: [_asking(table.by_vector, name, vector) for vector in found] for name, found in probes.items()}
    searches["bm25, filtered"] = [_asking(table.by_words, text, where="duration_s > 5") for text in texts]
    searches["audio_vector, filtered"] = [
        _asking(table.by_vector, "audio_vector", vector, where="duration_s > 5") for vector in probes["audio_vector"]
    ]
    return {
        "rows": options.rows,
        "dims": info.dims,
        "written_s": round(written_s, 1),
        "indexed_s": round(indexed_s, 1),
        "disk_bytes": disk_bytes(folder),
        "bytes_per_row": round(disk_bytes(folder) / options.rows),
        "first_100_ms": {name: latency(calls) for name, calls in searches.items()},
        "recall_of_exact": {name: table_recall(table, name, found[:COMPARED]) for name, found in probes.items()},
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _asking(search: Callable[..., Any], *arguments: Any, where: str | None = None) -> Callable[[], Any]:
    return lambda: search(*arguments, where, 100)


def latency(calls: Sequence[Callable[[], Any]]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds, the first call not counted."""
    calls[0]()
    seconds = []
    for call in calls:
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"p50": round(1e3 * float(p50), 1), "p95": round(1e3 * float(p95), 1)}


def table_recall(table: Any, column: str, probes: Sequence[NDArray[np.float32]]) -> dict[str, float]:
    """Share of the true 10 and 100 nearest rows that the approximate search gives."""
    shares = []
    for vector in probes:
        found, exact = (
            [row.key for row in table.by_vector(column, vector, None, 100, exact=exact)] for exact in (False, True)
        )
        shares.append([len({*found[:cut]} & {*exact[:cut]}) / cut for cut in (10, 100)])
    at_10, at_100 = np.mean(shares, 0)
    return {"at 10": round(float(at_10), 3), "at 100": round(float(at_100), 3)}


def disk_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--temporary", type=Path, help="folder for the index; the system's own if not given")
    commands = parser.add_subparsers(required=True)
    recall = commands.add_parser("recall")
    recall.add_argument("--manifest", type=Path, required=True)
    recall.add_argument("--model", default="pengi-mini")
    recall.add_argument("--split", default="val")
    recall.add_argument("--limit", type=int, default=0, help="only so many clips, drawn at random")
    recall.add_argument("--like", action="store_true", help="ask with every recording, too")
    recall.set_defaults(measure=measure_recall)
    scale = commands.add_parser("scale")
    scale.add_argument("--rows", type=int, default=1_000_000)
    scale.set_defaults(measure=measure_scale)
    for command in (recall, scale):
        command.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pengi-search-", dir=options.temporary))
    try:
        report = options.measure(options, folder)
    finally:
        shutil.rmtree(folder)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
