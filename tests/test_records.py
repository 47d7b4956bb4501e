"""Files of a published record: whole, resumed, cut, altered and refused, from a server on this machine."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pengi import weights
from pengi.cli import app
from pengi.errors import WeightsError
from pengi.weights.records import RecordSource, RecordUnavailableError, download
from pengi.writing import locked

CONTENT = bytes(range(256)) * 2000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
RECORD = 42


class Server:
    """A repository with one record; its fields say how it behaves, ``asked`` what was asked of it."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.size = len(CONTENT)
        self.md5 = MD5
        self.url: str | None = None
        """Where the record says the file is, if not here."""
        self.answer: bytes | None = None
        """What the record answers instead of its files."""
        self.refuses: dict[str, int] = {}
        """Path -> status."""
        self.cuts: list[int] = []
        """Bytes after which the next connections to the file are cut."""
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.host = f"http://127.0.0.1:{self.http.server_port}"
        self.source = RecordSource(RECORD, "model.pth", self.host)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append((self.path, self.headers["Range"]))
                if self.path in server.refuses:
                    self.send_error(server.refuses[self.path])
                elif self.path == f"/api/records/{RECORD}":
                    self._send(200, server.record())
                else:
                    self._send_file(self.headers["Range"])

            def _send_file(self, asked: str | None) -> None:
                if asked is None or not server.ranges:
                    self._send(200, server.content, cut=True)
                    return
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(server.content):
                    self.send_error(416)
                else:
                    self._send(206, server.content[start:], cut=True)

            def _send(self, status: int, body: bytes, cut: bool = False) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: server.cuts.pop(0)] if cut and server.cuts else body)
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def record(self) -> bytes:
        if self.answer is not None:
            return self.answer
        link = self.url or f"{self.host}/files/model.pth"
        file = {"key": "model.pth", "size": self.size, "checksum": f"md5:{self.md5}", "links": {"self": link}}
        return json.dumps({"id": RECORD, "files": [{"key": "other.txt"}, file]}).encode()

    @property
    def file_requests(self) -> list[str | None]:
        """The ranges that were asked of the file."""
        return [asked for path, asked in self.asked if path.startswith("/files")]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    thread = threading.Thread(target=running.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.http.shutdown()
    thread.join()
    running.http.server_close()


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock")


def test_a_file_arrives_whole_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    file = download(server.source, tmp_path / "new")
    assert file == tmp_path / "new" / "model.pth"
    assert file.read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["model.pth"]
    assert server.file_requests == [None]
    assert download(server.source, tmp_path / "new") == file
    assert len(server.asked) == 2


def test_a_cut_connection_is_taken_up_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 50_000]
    assert download(server.source, tmp_path).read_bytes() == CONTENT
    assert server.file_requests == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_call_goes_on_with_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 0]
    with pytest.raises(RecordUnavailableError, match=r"breaks off at 100000 of 512000 bytes, which are kept"):
        download(server.source, tmp_path)
    assert names(tmp_path) == ["model.pth.partial"]
    assert download(server.source, tmp_path).read_bytes() == CONTENT
    assert server.file_requests[-1] == "bytes=100000-"
    assert names(tmp_path) == ["model.pth"]


def test_a_server_without_ranges_sends_it_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cuts = [100_000]
    assert download(server.source, tmp_path).read_bytes() == CONTENT
    server.cuts = [100_000, 100_000]
    with pytest.raises(RecordUnavailableError, match="breaks off at 100000"):
        download(server.source, tmp_path / "again")


def test_a_file_of_another_length_than_the_record_says_is_refused(server: Server, tmp_path: Path) -> None:
    server.size = len(CONTENT) - 1
    with pytest.raises(WeightsError, match="is longer than the 511999 bytes that its record says"):
        download(server.source, tmp_path / "long")
    assert names(tmp_path / "long") == []
    server.size = len(CONTENT) + 1
    with pytest.raises(RecordUnavailableError, match="ends before it should"):
        download(server.source, tmp_path / "short")
    assert not (tmp_path / "short" / "model.pth").exists()


def test_a_file_with_another_checksum_is_refused_and_deleted(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(WeightsError, match=rf"has MD5 .* where its record says {MD5[:12]}.*fetch it again"):
        download(server.source, tmp_path)
    assert names(tmp_path) == []
    server.content = CONTENT
    assert download(server.source, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 429, 503])
def test_a_refusal_names_address_and_status(server: Server, tmp_path: Path, status: int) -> None:
    for path in (f"/api/records/{RECORD}", "/files/model.pth"):
        server.refuses = {path: status}
        with pytest.raises(RecordUnavailableError, match=rf"{path} is refused \(HTTP Error {status}: "):
            download(server.source, tmp_path)


def test_a_host_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordUnavailableError, match=r"http://127\.0\.0\.1:9/api/records/1 cannot be reached"):
        download(RecordSource(1, "model.pth", "http://127.0.0.1:9"), tmp_path)


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b'{"files": [{"key": "model.pth", "size": "?"}]}'])
def test_an_answer_in_another_form_is_refused(server: Server, tmp_path: Path, answer: bytes) -> None:
    server.answer = answer
    with pytest.raises(RecordUnavailableError, match="returned a response that is not understood"):
        download(server.source, tmp_path)


def test_a_record_without_the_file_says_what_it_has(server: Server, tmp_path: Path) -> None:
    server.answer = b'{"files": [{"key": "base.pth"}, {"key": "a.txt"}]}'
    with pytest.raises(WeightsError, match=r"/records/42 has no file 'model\.pth', only a\.txt, base\.pth\."):
        download(server.source, tmp_path)


def test_a_record_cannot_name_a_file_of_this_machine(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    server.url = secret.as_uri()
    with pytest.raises(RecordUnavailableError, match="not understood"):
        download(server.source, tmp_path / "out")


def test_two_processes_do_not_write_one_file(server: Server, tmp_path: Path) -> None:
    with (
        locked(tmp_path / "model.pth"),
        pytest.raises(WeightsError, match=r"another process is writing '.*model\.pth'"),
    ):
        download(server.source, tmp_path)


def test_a_folder_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="could not be written"):
        download(server.source, tmp_path / "file")


def test_progress_is_a_bar_on_stderr(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    download(server.source, tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    download(server.source, tmp_path / "shown")
    shown = capsys.readouterr()
    assert "512.0/512.0 kB" in shown.err
    assert shown.out == ""


# ---- pulling a published model ---------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENGI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def published(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server of a model "pengi-toy", the only published one."""
    model = weights.Published("pengi-toy", "a toy", "MIT", server.source, None, version=1)
    monkeypatch.setattr(weights, "_PUBLISHED", (model,))
    return server


def importer(file: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(file.read_bytes()[:10])


def test_a_published_model_is_fetched_imported_and_found(published: Server) -> None:
    assert weights.is_published("pengi-toy")
    assert not weights.is_published("yamnet")
    assert weights.cached("pengi-toy") is None
    folder = weights.pull_published("pengi-toy", importer)
    assert (folder / "model.safetensors").read_bytes() == CONTENT[:10]
    assert weights.resolve("pengi-toy") == weights.pull("pengi-toy") == folder
    assert weights.pull_published("pengi-toy", importer) == folder
    assert published.file_requests == [None]
    assert names(weights.cache_folder() / ".downloads") == []
    entry = next(entry for entry in weights.entries() if entry.name == "pengi-toy")
    assert (entry.path, entry.source) == (folder, f"{published.host}/records/42, model.pth")


def test_a_refused_import_leaves_no_model_and_keeps_the_download(published: Server) -> None:
    def refuse(file: Path, folder: Path) -> None:
        folder.mkdir()
        raise WeightsError("of another architecture")

    with pytest.raises(WeightsError, match="of another architecture"):
        weights.pull_published("pengi-toy", refuse)
    assert weights.cached("pengi-toy") is None
    weights.pull_published("pengi-toy", importer)
    assert published.file_requests == [None]


def test_offline_the_sentence_says_how_to_go_on_by_hand(published: Server) -> None:
    published.refuses = {f"/api/records/{RECORD}": 503}
    by_hand = (
        r"try again later, or download 'model\.pth' by hand from http://.*/records/42 and run "
        r"`pengi import-official model\.pth --out"
    )
    with pytest.raises(WeightsError, match=by_hand):
        weights.pull_published("pengi-toy", importer)


def test_a_published_model_is_never_fetched_unasked(home: Path) -> None:
    for resolve in (weights.resolve, weights.pull):
        with pytest.raises(
            WeightsError, match="'pengi-base' is not on this machine; fetch it with `pengi pull pengi-base`"
        ):
            resolve("pengi-base")
    with pytest.raises(WeightsError, match="did you mean 'pengi-base'"):
        weights.resolve("pengi-bas")


def test_the_papers_models_are_named_after_their_files() -> None:
    record_of = {model.name: model.record for model in weights._PUBLISHED}
    assert record_of == {
        "pengi-base": RecordSource(8387083, "base.pth"),
        "pengi-base-no-text-enc": RecordSource(8387083, "base_no_text_enc.pth"),
    }
    assert record_of["pengi-base"].page == "https://zenodo.org/records/8387083"


def test_the_command_fetches_and_imports(published: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Path | None] = []

    def import_official(file: Path, folder: Path, *, tokenizers: Path | None) -> None:
        used.append(tokenizers)
        importer(file, folder)

    monkeypatch.setattr("pengi.official.import_official", import_official)
    runner = CliRunner()
    for _ in range(2):
        result = runner.invoke(app, ["pull", "pengi-toy", "--tokenizers", "words", "--json"])
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["path"] == str(weights.cached("pengi-toy"))
    assert used == [Path("words")]
    assert (
        "--tokenizers is only for published models"
        in runner.invoke(app, ["pull", "yamnet", "--tokenizers", "words"]).stderr
    )
    published.refuses = {f"/api/records/{RECORD}": 404}
    monkeypatch.setenv("PENGI_HOME", str(weights.cache_folder() / "elsewhere"))
    result = runner.invoke(app, ["pull", "pengi-toy"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "HTTP Error 404" in result.stderr
