"""``compare`` and ``duplicates``: whether recordings are copies, and what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from pengi.cli.console import announced, guarded, print_error, print_json, print_note, print_text, progress
from pengi.cli.options import CommonOptions, Json
from pengi.cli.session import finish, load_model
from pengi.readable import percent

if TYPE_CHECKING:
    from pengi.comparing import Comparison, Duplicate

_VERDICTS = {
    "same": "The two are the same recording.",
    "part": "One is an excerpt of the other.",
    "different": "The two are different recordings.",
}


@guarded
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="The first of the two recordings.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="B", help="The second of the two recordings.", show_default=False)],
    *,
    common: CommonOptions,
) -> None:
    """Compare two recordings: whether they are the same one, even if re-encoded, louder or cut, and which tags, levels
    and words differ.

    Examples:
        pengi compare take1.wav take2.mp3
    """
    engine = load_model(common.model, common.device)
    with announced("Comparing"):
        from pengi.comparing import compare as compared

        found = compared(engine, first, second)
    for note in found.notes:
        print_note(note)
    if common.json:
        print_json(found.to_dict())
    else:
        _show(found)


def _show(found: Comparison) -> None:
    print_text(Text(_VERDICTS[found.verdict], style="bold"))
    if found.verdict != "different":
        print_text(Text(f"  B begins at {found.offset_s:+.2f} s of A; they share {found.overlap_s:.2f} s"))
    print_text(Text(f"  correlation {found.correlation:.2f}, similarity of the sound {found.similarity:.2f}"))
    table = Table("", "A", "B", box=None, padding=(0, 2))
    sides = (found.first, found.second)
    table.add_row("length", *(f"{side.duration_s:.2f} s" for side in sides))
    table.add_row("level", *(f"{side.level_db:.1f} dBFS" for side in sides))
    if any(side.transcript for side in sides):
        table.add_row("said", *(Text(side.transcript or "nothing") for side in sides))
    for pair in found.differing_tags:
        table.add_row(Text(pair.label), percent(pair.first), percent(pair.second))
    print_text(table)
    if found.shared_tags:
        shared = (f"{pair.label} ({percent(pair.first)}, {percent(pair.second)})" for pair in found.shared_tags)
        print_text(Text("In both: " + ", ".join(shared)))


@guarded
def duplicates(
    path: Annotated[str, typer.Argument(metavar="INDEX", help="Index that `pengi index` made.", show_default=False)],
    threshold: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="COSINE",
            help="Compare recordings whose embeddings have at least this cosine similarity.",
        ),
    ] = 0.9,
    json: Json = False,
) -> None:
    """Find recordings of an index that are copies of each other, even if re-encoded, louder or cut. Candidates are read
    again to make sure.

    Examples:
        pengi duplicates sounds.index
    """
    from pengi.comparing import Duplicate, verified
    from pengi.retrieval import Collection

    with announced("Searching"):
        pairs = Collection.open(path).similar_pairs(threshold)
    found: list[Duplicate] = []
    failed = 0
    with progress("Comparing") as waiting:
        for outcome in verified(pairs):
            if isinstance(outcome, Duplicate):
                found.append(outcome)
                continue
            failed += 1
            with waiting.hidden():
                print_error(f"{outcome[0]}: {outcome[1]}")
    if json:
        print_json([duplicate.to_dict() for duplicate in found])
    elif found:
        print_text(_table(found))
    else:
        print_note("no duplicates were found")
    finish(failed, failed)


def _table(found: list[Duplicate]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for duplicate in found:
        shared = f"{duplicate.overlap_s:.1f} s at {duplicate.offset_s:+.1f} s"
        table.add_row(f"{duplicate.correlation:.2f}", shared, Text(duplicate.first), Text(duplicate.second))
    return table
