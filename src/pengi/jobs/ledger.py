"""Stores the rows of a job, so that every recording has exactly one row even if the job is killed at any moment.

Rows are appended as lines of JSON, and flushed to the disk before the next ones are computed. An incomplete last line
is removed when the job continues, and a recording that has a row is not processed again. For ``.parquet`` the lines are
a journal beside the file; at the end they are added to it in one step. The task, its options and the model are stored
in ``<out>.job.json``; rows of another task or model are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Self

from pengi.data.arrow import arrow
from pengi.data.recordings import is_url
from pengi.errors import InputError
from pengi.jobs import tables
from pengi.json_lines import JsonLines, Row
from pengi.writing import locked, printable, replacing, writing

SUFFIXES = (".jsonl", ".parquet")
_CACHE_KB = 32_000


class NameSet:
    """A set of names in bounded memory: 16 bytes of hash for each, in a temporary file."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        self._database.execute("CREATE TABLE names (hash BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, name: str) -> bool:
        """Add a name; returns whether it is new."""
        digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
        return self._database.execute("INSERT OR IGNORE INTO names VALUES (?)", (digest,)).rowcount > 0

    def close(self) -> None:
        """Delete the temporary file."""
        self._database.close()


class Ledger:
    """An output file and its rows; made by :meth:`opened`."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.rows = 0
        """Number of rows, including those of earlier runs."""
        self.failed = 0
        """Rows with an error."""
        self._journal = JsonLines(out if out.suffix == SUFFIXES[0] else out.with_name(f"{out.name}.rows.jsonl"))
        self._sidecar = out.with_name(f"{out.name}.job.json")
        self._names = NameSet()
        self._folder = Path.cwd()
        self._settings: Mapping[str, Any] = {}
        self._unwritten_record: Mapping[str, Any] | None = None

    @classmethod
    @contextmanager
    def opened(
        cls, out: Path, settings: Mapping[str, Any], about: Mapping[str, Any], *, retry_errors: bool = False
    ) -> Iterator[Self]:
        """Open the existing rows, locked against other writers.

        Args:
            out: ends in ``.jsonl`` or ``.parquet``.
            settings: all that the answers depend on, as JSON values; a file with other settings is refused.
            about: further information to store beside the rows.
            retry_errors: drop the rows of recordings that could not be used, so that they are tried again.

        Raises:
            InputError: for another suffix, a file of another job, a file with lines that are not rows, a folder that
                cannot be written, or if another run is writing.
        """
        if out.suffix not in SUFFIXES:
            raise InputError(
                f"the results must go to a file that ends in {' or '.join(SUFFIXES)}, and '{out}' does not"
            )
        if out.suffix == SUFFIXES[1]:
            arrow()
        ledger = cls(out)
        with ExitStack() as stack:
            stack.callback(ledger._names.close)
            stack.enter_context(locked(out))
            ledger._begin(settings, about)
            ledger._journal.mend()
            if retry_errors:
                ledger._drop_errors()
            ledger._read()
            yield ledger

    def name_of(self, location: str) -> str:
        """The name of a recording in the rows: absolute as given, or relative to the folder where the job began."""
        if is_url(location) or os.path.isabs(location):  # noqa: PTH117 - a Path for each of a million names is slow
            return printable(location)
        # "." and ".." are resolved in the text of the path; symbolic links are not resolved.
        return printable(os.path.relpath(os.path.abspath(location), self._folder))  # noqa: PTH100

    def claim(self, name: str) -> bool:
        """Claim a recording; returns False if it has a row already, or was claimed before."""
        return self._names.add(self._key(name))

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows and flush them to the disk."""
        self._write_record()
        self._journal.append(rows)
        self.rows += len(rows)
        self.failed += sum(row["error"] is not None for row in rows)

    def finish(self) -> None:
        """Complete the output file. Until then the rows for a ``.parquet`` file are in the journal."""
        self._write_record()
        if self._journal.path == self.out:
            with writing(self.out):
                self.out.touch()
            return
        if self.out.exists() and not self._journal.path.exists():
            return
        with closing(NameSet()) as seen, tables.replacing_table(self.out, self._settings["task"]) as table:
            for row in self._all():
                # After a kill between the two steps the journal holds rows that are already in the file.
                if seen.add(self._key(row["input"])):
                    table.write(row)
        self._journal.path.unlink(missing_ok=True)

    def _begin(self, settings: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        self._settings = settings
        if not (self.out.exists() or self._journal.path.exists()):
            self._unwritten_record = {"settings": settings, "folder": printable(str(self._folder)), **about}
            return
        try:
            record = json.loads(self._sidecar.read_text(encoding="utf-8"))
            before, self._folder = record["settings"], Path(record["folder"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"'{self.out}' already exists, but '{self._sidecar.name}', which says which job it belongs to, is "
                "missing or damaged; choose another file"
            ) from error
        for name in sorted(before.keys() | settings.keys()):
            if before.get(name) != settings.get(name):
                raise InputError(
                    f"'{self.out}' was started with {_setting(name, before.get(name))}, not "
                    f"{_setting(name, settings.get(name))}; choose another file, or continue with the same settings"
                )

    def _write_record(self) -> None:
        """Write the record of a new job, before its first row."""
        if self._unwritten_record is not None:
            with replacing(self._sidecar) as partial:
                text = json.dumps(self._unwritten_record, ensure_ascii=False, indent=2) + "\n"
                partial.write_text(text, encoding="utf-8")
            self._unwritten_record = None

    def _drop_errors(self) -> None:
        with writing(self.out):
            if self._journal.path.is_file():
                self._journal.rewrite(row for row in self._journal_rows() if row["error"] is None)
            if self._journal.path != self.out and self.out.is_file():
                with tables.replacing_table(self.out, self._settings["task"]) as table:
                    for row in tables.read_rows(self.out):
                        if row["error"] is None:
                            table.write(row)

    def _read(self) -> None:
        for row in self._all(columns=("input", "error")):
            if self._names.add(self._key(row["input"])):
                self.rows += 1
                self.failed += row["error"] is not None

    def _all(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """Every row: those of the file, then those of the journal."""
        if self._journal.path != self.out and self.out.is_file():
            yield from tables.read_rows(self.out, columns)
        yield from self._journal_rows()

    def _journal_rows(self) -> Iterator[Row]:
        for number, row in enumerate(self._journal, start=1):
            if row is None or not {"input", "error"} <= row.keys():
                raise InputError(f"'{self._journal.path}', line {number}, is not a row of a job; choose another file")
            yield row

    def _key(self, name: str) -> str:
        """A normalised path, so that a recording has one key."""
        return name if is_url(name) else os.path.normpath(os.path.join(self._folder, name))  # noqa: PTH118


def _setting(name: str, value: Any) -> str:
    if name == "model_sha256":
        return f"the model {str(value)[:12]}"
    return f"no '{name}'" if value is None else f"{name} {json.dumps(value, ensure_ascii=False)}"
