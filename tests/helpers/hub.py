"""A stand-in of the Hugging Face hub's HTTP interface, as far as models are fetched and uploaded."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

MAIN = "main"


@dataclass
class Repository:
    """Commits of a repository: branches and tags, and the files of each commit."""

    private: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Add files to a branch; the hash of the new commit."""
        before = self.commits.get(self.refs.get(branch, ""), {})
        number = f"{branch} {len(self.commits)}"
        commit = hashlib.sha1(number.encode(), usedforsecurity=False).hexdigest()
        self.commits[commit] = {**before, **files}
        self.refs[branch] = commit
        return commit

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Hash and files of a branch, a tag or a commit."""
        commit = self.refs.get(revision, revision)
        return (commit, self.commits[commit]) if commit in self.commits else None


class Hub:
    """The hub; ``repositories`` is what it holds, ``requests`` what it was asked, ``token`` the one that may write."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.app = FastAPI()
        self.app.middleware("http")(self._count)
        self.app.api_route("/api/repos/create", methods=["POST"])(self._create)
        self.app.api_route("/api/validate-yaml", methods=["POST"])(self._validate)
        self.app.api_route("/api/models/{path:path}", methods=["GET", "POST"])(self._models)
        self.app.api_route("/{user}/{name}/resolve/{revision}/{file:path}", methods=["GET", "HEAD"])(self._file)

    async def _count(self, request: Request, call_next: Any) -> Any:
        self.requests.append(f"{request.method} {request.url.path}")
        if request.method == "POST" and request.headers.get("authorization") != f"Bearer {self.token}":
            return JSONResponse({"error": "Invalid username or password."}, 401)
        return await call_next(request)

    async def _create(self, request: Request) -> JSONResponse:
        body = await request.json()
        repo = f"{body['organization']}/{body['name']}" if body.get("organization") else body["name"]
        status = 409 if repo in self.repositories else 200
        private = bool(body.get("private")) or body.get("visibility") == "private"
        self.repositories.setdefault(repo, Repository(private))
        return JSONResponse({"url": f"{request.base_url}{repo}", "id": repo}, status)

    async def _validate(self) -> JSONResponse:
        return JSONResponse({"errors": [], "warnings": []})

    async def _models(self, path: str, request: Request) -> Response:
        user, name, *rest = path.split("/")
        repo = f"{user}/{name}"
        kept = self.repositories.get(repo)
        if kept is None:
            return JSONResponse({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        what = rest[0] if rest else "revision"
        revision = rest[1] if len(rest) > 1 else MAIN
        if request.method == "POST":
            return await self._write(kept, repo, what, revision, request)
        found = kept.files(revision)
        if found is None:
            return JSONResponse({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        commit, files = found
        if what == "tree":
            return JSONResponse(
                [{"type": "file", "path": path, "size": len(data), "oid": _oid(data)} for path, data in files.items()]
            )
        siblings = [{"rfilename": path} for path in files]
        return JSONResponse(
            {"id": repo, "modelId": repo, "sha": commit, "private": kept.private, "tags": [], "siblings": siblings}
        )

    async def _write(self, kept: Repository, repo: str, what: str, revision: str, request: Request) -> Response:
        if what == "branch":
            kept.refs.setdefault(revision, kept.refs.get(MAIN, ""))
            return JSONResponse({})
        if what == "preupload":
            given = (await request.json())["files"]
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in given]
            return JSONResponse({"files": modes})
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        commit = kept.commit(revision, files)
        return JSONResponse({"commitUrl": f"{request.base_url}{repo}/commit/{commit}", "commitOid": commit})

    async def _file(self, user: str, name: str, revision: str, file: str, request: Request) -> Response:
        kept = self.repositories.get(f"{user}/{name}")
        found = None if kept is None else kept.files(revision)
        if found is None or file not in found[1]:
            return JSONResponse({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        commit, files = found
        headers = {"ETag": f'"{_oid(files[file])}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(len(files[file]))})
        return Response(files[file], headers=headers)


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
