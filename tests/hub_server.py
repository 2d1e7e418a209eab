"""A server on loopback that speaks the protocol of the Hugging Face hub, as far as huggingface_hub reads models from it."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LARGE = (".safetensors", ".bin", ".ckpt", ".onnx", ".msgpack")
"""Files that the hub keeps by Git LFS: listed with their SHA-256, and served from another address."""


def has_loopback() -> bool:
    """Whether a server on this machine can be reached: not in a network namespace of its own."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=5):
            return True
    except OSError:
        return False


needs_hub = [
    pytest.mark.export,
    pytest.mark.skipif(
        find_spec("huggingface_hub") is None, reason="downloads by huggingface_hub, which is missing (pip install costroute-rt[export])"
    ),
    pytest.mark.skipif(not has_loopback(), reason="talks to a server on loopback, which is down here"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::ResourceWarning"),
]
"""Marks of a test module that uses the server."""


def continues_downloads() -> bool:
    """Whether huggingface_hub continues a download of an earlier process: before version 1, which the export extra has."""
    try:
        return int(version("huggingface_hub").partition(".")[0]) < 1
    except PackageNotFoundError:
        return False


needs_continuing = pytest.mark.skipif(not continues_downloads(), reason="huggingface_hub 1 and later start interrupted downloads over")


@dataclass
class Repository:
    """A model with its files at one commit."""

    files: Mapping[str, bytes]
    token: str | None = None
    """The only one that may read it, if it is gated."""
    changed: dict[str, bytes] = field(default_factory=dict)
    """What is served instead of some files, which are listed with the hashes of `files`."""

    @cached_property
    def commit(self) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        for name, data in sorted(self.files.items()):
            digest.update(name.encode() + data)
        return digest.hexdigest()

    def revisions(self) -> set[str]:
        return {"main", "v1", self.commit}


class HubServer:
    """Serves repositories while the block runs, and keeps what was asked."""

    def __init__(self, **repositories: Repository) -> None:
        """repositories: by name; the owner of all is `someone`."""
        self.repositories = {f"someone/{name}": each for name, each in repositories.items()}
        self.requests: list[tuple[str, str, int]] = []
        """Method, path, and status of every request."""
        self.sent: dict[str, int] = {}
        """Bytes of each file that were sent, by name."""
        self.cut: dict[str, list[int]] = {}
        """For each file, how many bytes each of the next answers has before the connection breaks."""
        self.broken: dict[str, int] = {}
        """Status of the next answers about a file, or `list`, instead of the content."""
        self.held = threading.Event()
        """Set when an answer waits; see `hold`."""
        self.hold: dict[str, int] = {}
        """For each file, the bytes after which the answer stops and waits until the server is closed."""
        self._closing = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
        self._threads = [threading.Thread(target=each.serve_forever, args=(0.02,), daemon=True) for each in self._servers]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def storage(self) -> str:
        """Address of the host that has the large files."""
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    def environment(self, home: Path) -> dict[str, str]:
        """The environment of a process that uses this hub alone."""
        kept = {name: value for name, value in os.environ.items() if not re.match(r"(?i)HF_|HUGGING|.*_proxy$", name)}
        return {**kept, "HF_ENDPOINT": self.address, "HF_HOME": str(home)}

    def forget(self) -> None:
        """Counts from here on."""
        self.requests.clear()
        self.sent.clear()

    def close(self) -> None:
        self._closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> HubServer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._closing.is_set():
            self.close()
        gc.collect()  # connections that huggingface_hub leaves open end here, not in a later test

    def wait(self) -> None:
        self.held.set()
        self._closing.wait(60)


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""

    def _answer(self, *, has_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._list(match[1], match[2] or "main")
        elif path.startswith("/cdn/") and self.headers["Authorization"]:
            self._refuse(400, "", "a token was sent to the storage")
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self._send_file(match[2], self._data(match[1], match[2]), {}, has_body=has_body)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[2], match[3], has_body=has_body)
        else:
            self._refuse(404, "", "no such page")

    def _list(self, repo_id: str, revision: str) -> None:
        if self._refuses(repo_id, revision, "list"):
            return
        repository = self.hub.repositories[repo_id]
        siblings = [_entry(name, data) for name, data in repository.files.items()]
        body = json.dumps({"id": repo_id, "sha": repository.commit, "siblings": siblings}).encode()
        self._begin(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _resolve(self, repo_id: str, revision: str, name: str, *, has_body: bool) -> None:
        if self._refuses(repo_id, revision, name):
            return
        repository = self.hub.repositories[repo_id]
        data = repository.files[name]
        headers = {"X-Repo-Commit": repository.commit}
        if name.endswith(LARGE):
            place = f"{self.hub.storage}/cdn/{repo_id}/{name}?signature=secret"
            xet = {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": f"{self.hub.address}/xet"}  # a storage that does not answer
            linked = {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
            self._begin(302, headers | linked | xet | {"Location": place, "Content-Length": "0"})
        else:
            self._send_file(name, self._data(repo_id, name), headers | {"ETag": f'"{git_sha1(data)}"'}, has_body=has_body)

    def _refuses(self, repo_id: str, revision: str, name: str) -> bool:
        """Answers with an error if there is a reason."""
        repository = self.hub.repositories.get(repo_id)
        if repository is None:
            self._refuse(404, "RepoNotFound", "Repository not found")
        elif revision not in repository.revisions():
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif name != "list" and repository.token is not None and self.headers["Authorization"] != f"Bearer {repository.token}":
            status = 403 if self.headers["Authorization"] else 401
            self._refuse(status, "GatedRepo", "Access to this model is restricted")
        elif name != "list" and name not in repository.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
        elif name in self.hub.broken:
            self._refuse(self.hub.broken[name], "", "Internal error")
        else:
            return False
        return True

    def _data(self, repo_id: str, name: str) -> bytes:
        repository = self.hub.repositories[repo_id]
        return repository.changed.get(name, repository.files[name])

    def _send_file(self, name: str, data: bytes, headers: dict[str, str], *, has_body: bool) -> None:
        start = int(match[1]) if (match := re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")) else 0
        rest = data[start:]
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._begin(206 if start else 200, headers | {"Content-Length": str(len(rest)), "Accept-Ranges": "bytes"})
        if not has_body:
            return
        limits = self.hub.cut.get(name)
        ends = limits.pop(0) if limits else self.hub.hold.get(name, len(rest))
        self.hub.sent[name] = self.hub.sent.get(name, 0) + len(
            rest[:ends]
        )  # before: a client may hang up, and a test go on, while it writes
        self.wfile.write(rest[:ends])
        self.wfile.flush()
        if name in self.hub.hold:
            self.hub.wait()

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._begin(status, {"X-Error-Code": code, "X-Error-Message": message, "Content-Length": "0"} if code else {"Content-Length": "0"})

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.hub.requests.append((self.command, self.path, status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _entry(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_sha1(data)}
    if name.endswith(LARGE):
        entry["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
    return entry
