"""A stand-in for a model hub on this machine: commits of small files, by the requests that huggingface_hub makes."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_letmein"


class Hub(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}  # of each repository: id and files
        self.private: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def answer(self, value: Any, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def commit(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit that a revision names; after an answer None if there is none."""
        if repository not in self.server.commits:
            self.answer({}, 404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            return None
        made = self.server.commits[repository]
        found = made[-1:] if revision == "main" else [commit for commit in made if commit[0] == revision]
        if not found:
            self.answer({}, 404, X_Error_Code="RevisionNotFound", X_Error_Message=f"Invalid rev id: {revision}")
            return None
        return found[0]

    def do_GET(self) -> None:
        if asked := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^?]+))?(?:\?.*)?", self.path):
            if commit := self.commit(asked[1], asked[2] or "main"):
                files = [{"rfilename": name} for name in commit[1]]
                self.answer({"id": asked[1], "sha": commit[0], "siblings": files, "private": False, "tags": []})
        elif asked := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^?/]+)(?:\?.*)?", self.path):
            if commit := self.commit(asked[1], asked[2]):
                listed = [
                    (name, len(content), hashlib.sha1(content).hexdigest()) for name, content in commit[1].items()
                ]
                self.answer([{"type": "file", "path": name, "size": size, "oid": oid} for name, size, oid in listed])
        elif asked := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            if commit := self.commit(asked[1], asked[2]):
                content = commit[1][asked[3]]
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                self.answer(content, X_Repo_Commit=commit[0], ETag=etag)
        else:
            self.answer({}, 404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.server.commits.setdefault(name, [("0" * 40, {})])
            if asked.get("visibility") == "private":
                self.server.private.add(name)
            return self.answer({"url": f"{self.server.address}/{name}"})
        kind = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main(?:\?.*)?", self.path)
        if not kind:
            return self.answer({}, 404)
        if kind[2] == "preupload":
            regular = {"uploadMode": "regular", "shouldIgnore": False}
            return self.answer({"files": [{"path": file["path"], **regular} for file in json.loads(body)["files"]]})
        lines = [json.loads(line) for line in body.splitlines()]
        files = dict(self.server.commits[kind[1]][-1][1])
        files |= {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines[1:]}
        oid = hashlib.sha1(body).hexdigest()
        self.server.commits[kind[1]].append((oid, files))
        return self.answer({"commitUrl": f"{self.server.address}/{kind[1]}/commit/{oid}", "commitOid": oid})

    def log_message(self, format, *arguments):
        pass


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
