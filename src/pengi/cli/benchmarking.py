"""``bench``: how fast a model is on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from pengi.cli.console import announced, guarded, print_json, print_text
from pengi.cli.options import AUTO, DEFAULT_MODEL, Device, Json, Model

if TYPE_CHECKING:
    from pengi.timing import Figure, Timing

_DECIMALS = {"s": 2, "x": 1, "MB": 0}


@guarded
def bench(
    model: Model = DEFAULT_MODEL,
    quick: Annotated[bool, typer.Option("--quick", help="Measure everything once, with short recordings.")] = False,
    json: Json = False,
    device: Device = AUTO,
) -> None:
    """Measure how fast a model is on this machine: start, memory, describe, ask, tags and timeline. It takes about two
    minutes.

    Examples:
        pengi bench
        pengi bench --json
    """
    with announced(f"Measuring {model}"):
        from pengi.timing import measure

        timing = measure(model, device, quick=quick)
    if json:
        print_json(timing.to_dict())
    else:
        _show(timing)


def _show(timing: Timing) -> None:
    machine = timing.machine
    print_text(
        f"{timing.model} on {machine.processor}, {machine.cores} cores, {machine.threads} threads, {machine.device}; "
        f"the language model in {machine.runtime}"
    )
    table = Table(box=None, padding=(0, 2), show_header=False)
    for figure in timing.figures:
        table.add_row(Text(figure.name, style="bold"), _value(figure), Text(figure.meaning, style="dim"))
    table.columns[1].justify = "right"
    print_text(table)


def _value(figure: Figure) -> str:
    return f"{figure.value:.{_DECIMALS[figure.unit]}f} {figure.unit}"
