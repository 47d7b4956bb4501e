"""The Model Context Protocol: the calls of the engine as tools of an agent.

An agent names recordings by their paths. Only files in the folders that were given at the start are read; a link that
points outside of them is not followed. Results are structured: the schema of each tool says what it returns.
"""

from __future__ import annotations

import functools
import heapq
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Concatenate, ParamSpec, TypeVar

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from pengi import __version__
from pengi.audio.formats import FolderWalk
from pengi.errors import InputError, PengiError
from pengi.results import Answer, Classification, Description, Tags, Timeline, Transcript
from pengi.retrieval import Collection, Hit

if TYPE_CHECKING:
    from pengi.engine import Pengi

INSTRUCTIONS = """
Pengi answers questions about audio recordings: what is in them, what is said, and when. `list_recordings` gives the
recordings that can be read; the other tools take the path of one. `tags` and `timeline` give calibrated probabilities.
The texts of `describe` and `ask` are written by a small language model: check what matters with `tags`.
Times are in seconds, probabilities between 0 and 1.
"""
READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)

P = ParamSpec("P")
R = TypeVar("R")

RecordingPath = Annotated[str, Field(description="A path that list_recordings gave, or one relative to its folder.")]
Probability = Annotated[float, Field(ge=0, le=1)]
Threshold = Annotated[
    Probability | dict[str, Probability] | None,
    Field(description="Lowest probability, or one for each label ('*' for the others); the model's own if absent."),
]
OnlyTags = Annotated[list[str] | None, Field(description="Only these tags; all if absent.")]
OnlyLabels = Annotated[
    list[str] | None, Field(description="Only these: tags, or up to 16 other words; all tags if absent.")
]
Labels = Annotated[list[str], Field(min_length=1, description="Any words, such as 'dog barking' and 'rain'.")]
Seconds = Annotated[float | None, Field(ge=0)]
Explain = Annotated[bool, Field(description="Add what the answer is based on: tags, transcript, the prompt.")]
Limit = Annotated[int, Field(ge=1, le=1000)]


@dataclass(frozen=True)
class RecordingList:
    """Paths of recordings, in order, and how many there are in all."""

    recordings: tuple[str, ...]
    total: int


@dataclass(frozen=True)
class SearchResult:
    """What a search found, the best first."""

    hits: tuple[Hit, ...]


class Folders:
    """The folders whose recordings may be read.

    Raises:
        InputError: if one is not a folder.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise InputError(f"there is no folder '{folder}'")
        self._roots = tuple(folder.resolve() for folder in folders)

    def file(self, name: str) -> Path:
        """The file of that name, absolute or relative to one of the folders.

        Raises:
            InputError: if there is no such file, or it is outside of the folders. The message is the same for both, so
                that nobody can find out which other files exist.
        """
        for root in self._roots:
            try:
                path = (root / name).resolve()
                if self._contains(path) and path.is_file():
                    return path
            except (OSError, ValueError):  # a name that is too long, or has a null character
                break
        raise InputError(f"there is no recording '{name[:200]}' here; call list_recordings to see the available ones")

    def listing(self, pattern: str, limit: int) -> RecordingList:
        """The recordings whose path or file name matches a pattern such as ``*.wav``; the first ``limit`` of them."""
        total = 0

        def matching() -> Iterator[str]:
            nonlocal total
            for root in self._roots:
                for item in FolderWalk(root):
                    path = Path(item.path)
                    if item.error is None and (fnmatchcase(item.path, pattern) or path.match(pattern)):
                        if path.is_symlink() and not self._contains(path.resolve()):
                            continue
                        total += 1
                        yield item.path

        return RecordingList(tuple(heapq.nsmallest(limit, matching())), total)

    def _contains(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self._roots)


def _answering(method: Callable[Concatenate[Tools, P], R]) -> Callable[Concatenate[Tools, P], R]:
    """Make a method a tool: only one runs at a time, and a :class:`PengiError` becomes an error for the agent."""

    @functools.wraps(method)
    def run(self: Tools, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with self.lock:
                return method(self, *args, **kwargs)
        except PengiError as error:
            raise ToolError(str(error)) from error

    return run


class Tools:
    """The tools of an agent, which reads their docstrings.

    Args:
        engine: returns the model, if necessary after waiting until it is loaded.
        folders: whose recordings may be read.
        collection: what ``search`` searches; without it there is no such tool.
    """

    def __init__(self, engine: Callable[[], Pengi], folders: Folders, collection: Collection | None = None) -> None:
        self.lock = threading.Lock()
        self._engine, self._folders, self._collection = engine, folders, collection

    @_answering
    def list_recordings(
        self,
        pattern: Annotated[str, Field(description="Of the path or the file name, such as *.wav or */night/*.")] = "*",
        limit: Limit = 100,
    ) -> RecordingList:
        """List the recordings that can be read."""
        return self._folders.listing(pattern, limit)

    @_answering
    def describe(self, path: RecordingPath, explain: Explain = False) -> Description:
        """Describe a recording in a sentence, and name its sound events."""
        return self._engine().describe(self._folders.file(path), explain=explain)

    @_answering
    def ask(self, path: RecordingPath, question: str, explain: Explain = False) -> Answer:
        """Answer a question about the sound of a recording, such as "what instrument is playing?"."""
        return self._engine().ask(self._folders.file(path), question, explain=explain)

    @_answering
    def tags(
        self,
        path: RecordingPath,
        threshold: Threshold = None,
        labels: OnlyTags = None,
        top: Limit | None = None,
    ) -> Tags:
        """Detect what is in a recording: sounds, instruments, genres, languages, speakers, with calibrated
        probabilities and times."""
        return self._engine().tags(self._folders.file(path), threshold=threshold, labels=labels, top=top)

    @_answering
    def timeline(
        self,
        path: RecordingPath,
        threshold: Threshold = None,
        labels: OnlyLabels = None,
        min_duration_s: Annotated[Seconds, Field(description="Leave out shorter events.")] = None,
        merge_gap_s: Annotated[
            Seconds, Field(description="Join events of one label with a shorter pause between them; 0.5 if absent.")
        ] = None,
    ) -> Timeline:
        """List what happens when in a recording of any length; events may overlap. For a long recording, name the
        labels that matter."""
        return self._engine().timeline(
            self._folders.file(path),
            threshold=threshold,
            labels=labels,
            min_duration_s=min_duration_s,
            merge_gap_s=merge_gap_s,
        )

    @_answering
    def transcribe(self, path: RecordingPath) -> Transcript:
        """Transcribe English speech, with times; nothing where nobody speaks."""
        return self._engine().transcribe(self._folders.file(path))

    @_answering
    def classify(
        self,
        path: RecordingPath,
        labels: Labels,
        none: Annotated[bool, Field(description="Allow the answer that none of the labels fits.")] = False,
        none_threshold: Annotated[
            float | None,
            Field(
                gt=0, lt=1, description="The same if no label has at least this independent probability; 0.5 with none."
            ),
        ] = None,
        multi_label: Annotated[
            bool, Field(description="Add the probability of each label by itself; several may be right.")
        ] = False,
        top: Limit | None = None,
    ) -> Classification:
        """Choose among labels of your own; each gets its share of the probability, the best first."""
        return self._engine().classify(
            self._folders.file(path),
            labels,
            none=none if none_threshold is None else none_threshold,
            multi_label=multi_label,
            top=top,
        )

    @_answering
    def search(
        self,
        query: Annotated[str | None, Field(description="What to find, in plain words.")] = None,
        like: Annotated[str | None, Field(description="Path of a recording that the hits should sound like.")] = None,
        where: Annotated[str | None, Field(description="SQL condition, such as duration_s > 5.")] = None,
        limit: Limit = 10,
    ) -> SearchResult:
        """Find recordings in the index by words, by a recording that sounds alike, or by both."""
        assert self._collection is not None
        recording = None if like is None else self._engine().embed(self._folders.file(like))
        return SearchResult(tuple(self._collection.search(query, recording, where, limit)))


def create_server(engine: Callable[[], Pengi], folders: Folders, collection: Collection | None = None) -> MCPServer:
    """A server that offers :class:`Tools`; see there for the arguments."""
    server = MCPServer("pengi", instructions=INSTRUCTIONS.strip(), version=__version__, log_level="WARNING")
    tools = Tools(engine, folders, collection)
    offered: list[Callable[..., object]] = [tools.list_recordings, tools.describe, tools.ask, tools.tags]
    offered += [tools.timeline, tools.transcribe, tools.classify]
    if collection is not None:
        offered.append(tools.search)
    for tool in offered:
        description = " ".join((tool.__doc__ or "").split())
        server.add_tool(tool, description=description, annotations=READ_ONLY, structured_output=True)
    return server
