"""A hub on a real socket: the API, `resolve` with its headers, and a storage on another host.

Speaks what huggingface.co speaks: large files (LFS) answer HEAD and GET with a redirect to the
storage and carry X-Linked-Etag, X-Linked-Size and X-Repo-Commit; small ones answer themselves, with
git's blob hash as ETag. Each fault is a field that a test sets.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

CHUNK_BYTES = 16_384


def tensors(count: int, seed: int = 0) -> bytes:
    """A safetensors file of one uint8 tensor with `count` elements, no two seeds alike."""
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "weight": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]},
        }
    ).encode()
    data = hashlib.shake_128(str(seed).encode()).digest(count)
    return struct.pack("<Q", len(header)) + header + data


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class FakeHub:
    """files: repository -> name -> content; .safetensors are large files. commit: of them all.

    cut_after:      each answer of the storage breaks off after so many bytes; None: never
    cuts:           how many answers may break off
    storage:        content -> the bytes the storage really sends
    linked_size:    what X-Linked-Size says, in place of the truth
    refuse:         name -> (status, X-Error-Code) for every request of it; "" for the API
    busy:           requests that are answered 503 before the first that is not
    ranges:         False: Range is ignored
    hold:           the storage sends one chunk, then waits for this
    answers:        "words": the API answers with a page; "nowhere": files have no hash;
                    "elsewhere": large files redirect without saying anything of themselves
    requests:       method, path and headers of each
    sent:           bytes of each file that left the storage
    """

    files: dict[str, dict[str, bytes]]
    commit: str
    licence: str = "mit"
    token: str = ""
    cut_after: int | None = None
    cuts: int = 1_000_000
    storage: Callable[[bytes], bytes] = lambda content: content
    linked_size: int | None = None
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    busy: int = 0
    ranges: bool = True
    hold: threading.Event | None = None
    answers: str = "well"
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    started: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.mutex = threading.Lock()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = _Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        if self.hold is not None:
            self.hold.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def asked(self, method: str, part: str = "") -> list[dict[str, str]]:
        """The headers of each request with this method whose path holds `part`."""
        return [headers for verb, path, headers in self.requests if verb == method and part in path]


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *_: Any) -> None: ...

    def answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        with hub.mutex:
            lowered = {name.lower(): value for name, value in self.headers.items()}
            hub.requests.append((self.command, path, lowered))
            hub.busy -= 1
            if hub.busy >= 0:
                return self.reply(503, b"", {"Retry-After": "0"})
        if path.startswith("/storage/"):
            return self.send_content(path.removeprefix("/storage/"))
        if hub.token and lowered.get("authorization") != f"Bearer {hub.token}":
            return self.reply(401, b"", {"X-Error-Code": "GatedRepo"})
        if path.startswith("/api/models/"):
            return self.describe(path.removeprefix("/api/models/"))
        repo, _, rest = path.strip("/").partition("/resolve/")
        commit, _, name = rest.partition("/")
        return self.resolve(repo, commit, name)

    def describe(self, path: str) -> None:
        repo, _, commit = path.partition("/revision/")
        if refused := self.hub.refuse.get(""):
            return self.reply(refused[0], b"", {"X-Error-Code": refused[1]})
        if repo not in self.hub.files:
            return self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
        if commit not in (self.hub.commit, "main"):
            return self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if self.hub.answers == "words":
            return self.reply(200, b"<html>Sign in</html>", {"Content-Type": "text/html"})
        facts = {
            "id": repo,
            "sha": self.hub.commit,
            "siblings": [{"rfilename": name} for name in self.hub.files[repo]],
            "cardData": {"license": self.hub.licence},
        }
        self.reply(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})

    def resolve(self, repo: str, commit: str, name: str) -> None:
        hub = self.hub
        if refused := hub.refuse.get(name):
            return self.reply(refused[0], b"", {"X-Error-Code": refused[1]})
        content = hub.files.get(repo, {}).get(name)
        if content is None or commit != hub.commit:
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": hub.commit}
        if hub.answers == "nowhere":
            return self.reply(200, content, headers)
        if not name.endswith(".safetensors"):
            return self.reply(200, content, headers | {"ETag": f'W/"{git_blob(content)}"'})
        headers |= {
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(hub.linked_size or len(content)),
            "Location": f"http://localhost:{hub.port}/storage/{repo}/{name}?signed=1",
        }
        if hub.answers == "elsewhere":
            headers = {"Location": headers["Location"]}
        self.reply(302, b"Found. Redirecting", headers)

    def send_content(self, path: str) -> None:
        """Bytes from the storage, from where Range says on, as long as the faults let them flow."""
        hub = self.hub
        owner, repo, name = path.split("/", 2)
        content = hub.storage(hub.files[f"{owner}/{repo}"][name])
        start = 0
        asked = self.headers.get("Range", "")
        if asked and hub.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        body = content[start:]
        self.send_response(206 if asked and hub.ranges else 200)
        self.send_header("Content-Length", str(len(body)))
        if asked and hub.ranges:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", span)
        self.end_headers()
        with hub.mutex:
            cut = hub.cut_after if hub.cuts > 0 and (hub.cut_after or 0) < len(body) else None
            hub.cuts -= cut is not None
        for at in range(0, len(body), CHUNK_BYTES):
            chunk = body[at : at + CHUNK_BYTES]
            if cut is not None and at + len(chunk) > cut:
                chunk = chunk[: max(0, cut - at)]
            self.wfile.write(chunk)
            with hub.mutex:
                hub.sent[name] += len(chunk)
            hub.started.set()
            if cut is not None and at + CHUNK_BYTES > cut:
                self.close_connection = True
                return
            if hub.hold is not None:
                hub.hold.wait(20)

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
