"""The Hugging Face hub's protocol: what a commit holds, a file's size and hash, its bytes.

Knows neither the catalogue nor where files go in the end. Everything is retried with growing pauses
until nothing has moved for several tries; a broken transfer goes on where it stopped.

Why not the library huggingface_hub? Tried in version 2.4.0 without Xet, against the server of our
tests: a transfer that breaks, or whose process is killed, begins again at its first byte, and a
file with one flipped bit is taken for good. Neither will do here. With Xet it needs hf-xet, an
11 MB binary that it requires in any case, beside a second HTTP library and four more packages;
httpx is ours already. What is needed is three requests, and each file is one GET with a Range;
repositories stored by Xet answer these too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote

import httpx

from models.context import Unavailable
from models.weights.faults import disk_full, refusal, wrong_size
from models.weights.store import hub_home

ENDPOINT = "https://huggingface.co"
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
LONGEST_PAUSE_SECONDS = 20.0
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
MOST_HOPS = 5

OnPosition = Callable[[int], None]
"""Bytes of the file that have arrived; fewer than before when it starts anew."""


@dataclass(frozen=True)
class RemoteRevision:
    """One commit: its files' names, its licence as the model card has it ("" when it has none)."""

    commit: str
    names: frozenset[str]
    licence: str


@dataclass(frozen=True)
class RemoteFile:
    """etag: SHA-256 of the content (64 hex digits), or git's SHA-1 of it as a blob (40)."""

    repo: str
    name: str
    commit: str
    size_bytes: int
    etag: str


class _Busy(Exception):
    """The hub asks to come back later."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"{response.status_code} {response.reason_phrase}")
        wait = response.headers.get("retry-after", "")
        self.seconds = float(wait) if wait.isdigit() else 0.0


def offline(environment: Mapping[str, str]) -> bool:
    """HF_HUB_OFFLINE, read as the hub's own library reads it."""
    return environment.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def token_of(environment: Mapping[str, str]) -> str:
    """HF_TOKEN, else what `hf auth login` has stored; "" for none."""
    if token := environment.get("HF_TOKEN", "").strip():
        return token
    path = environment.get("HF_TOKEN_PATH") or hub_home(environment) / "token"
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except OSError:
        return ""


@dataclass
class Hub:
    """One hub. Threads may share it. Setting `stopped` ends transfers at their next chunk.

    retries: tries that may fail in a row while nothing arrives
    """

    endpoint: str = ENDPOINT
    token: str = ""
    retries: int = 5
    backoff_seconds: float = 1.0
    stopped: Event = field(default_factory=Event)
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        headers = {"User-Agent": "meshpress", "Accept-Encoding": "identity"}
        if self.token:
            # httpx leaves it out when a redirect leads to another host, as every large file's does.
            headers["Authorization"] = f"Bearer {self.token}"
        self.http = httpx.Client(headers=headers, timeout=TIMEOUT)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **options: Any) -> Hub:
        """The hub that HF_ENDPOINT names, with the token of HF_TOKEN or HF_HOME.

        Raises Unavailable when HF_HUB_OFFLINE forbids asking.
        """
        environment = os.environ if environment is None else environment
        if offline(environment):
            raise Unavailable(
                "HF_HUB_OFFLINE is set: nothing is downloaded.",
                code="hub_offline",
                next_step="Unset it, or copy the files by hand: docs/models.md.",
            )
        endpoint = (environment.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
        if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", endpoint):
            raise Unavailable(
                f"HF_ENDPOINT has the value {endpoint!r}, which is no address.",
                code="hub_unreachable",
                next_step=f"Write it like {ENDPOINT}.",
            )
        return cls(endpoint, token_of(environment), **options)

    def close(self) -> None:
        self.http.close()

    # -- what is there ------------------------------------------------------------------------

    def revision(self, repo: str, commit: str) -> RemoteRevision:
        """Raises Unavailable: unknown, gated, out of reach."""
        response = self._ask("GET", f"{self.endpoint}/api/models/{repo}/revision/{commit}", repo)
        try:
            facts = response.json()
            names = frozenset(str(row["rfilename"]) for row in facts["siblings"])
            card = facts.get("cardData") or {}
            sha = str(facts["sha"])
            if not re.fullmatch(r"[0-9a-f]{40}", sha):
                raise ValueError(f"{sha!r} is no commit")
            return RemoteRevision(sha, names, str(card.get("license") or ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._not_a_hub("its answer about the repository cannot be read") from None

    def describe(self, repo: str, commit: str, name: str) -> RemoteFile:
        """A file's size and hash, without its bytes. Raises Unavailable."""
        url = self._url(repo, commit, name)
        for _ in range(MOST_HOPS):
            response = self._ask("HEAD", url, repo)
            # A large file's answer is a redirect to the storage and has the facts itself; only a
            # renamed repository's, which stays at the hub, is followed.
            if response.next_request is None or "x-linked-etag" in response.headers:
                break
            url = str(response.next_request.url)
            if not url.startswith(f"{self.endpoint}/"):  # the token is for the hub alone
                raise self._not_a_hub(f"it sends us to {url} for the hash of {name}")
        headers = response.headers
        etag = headers.get("x-linked-etag") or headers.get("etag", "")
        etag = etag.removeprefix("W/").strip('"')
        size = headers.get("x-linked-size") or headers.get("content-length", "")
        if not size.isdigit() or not re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", etag):
            raise self._not_a_hub(f"it tells neither size nor hash of {name}")
        return RemoteFile(repo, name, headers.get("x-repo-commit", commit), int(size), etag)

    # -- bytes --------------------------------------------------------------------------------

    def fetch(self, remote: RemoteFile, part: Path, on_position: OnPosition) -> None:
        """Bring `part` to the file's size; what it holds already is kept and gone on from.

        Raises Unavailable: out of reach, refused, another size than announced, disk full.
        """
        failures = 0
        while (start := _size(part)) != remote.size_bytes or not part.exists():
            if start > remote.size_bytes:
                part.unlink()
                raise wrong_size(
                    remote.repo, remote.name, remote.size_bytes, f"more than {remote.size_bytes:,}"
                )
            problem: Exception = httpx.RemoteProtocolError("the answer ended early")
            try:
                self._append(remote, part, start, on_position)
            except (httpx.TransportError, _Busy) as error:
                problem = error
            except OSError as error:
                raise disk_full(part.parent, error) from error
            if _size(part) < remote.size_bytes:
                failures = 1 if _size(part) > start else failures + 1
                self._pause_or_give_up(failures, problem)

    def _append(self, remote: RemoteFile, part: Path, start: int, on_position: OnPosition) -> None:
        """One GET from byte `start` on. A server that ignores ranges sends all, in its place."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        url = self._url(remote.repo, remote.commit, remote.name)
        with self.http.stream("GET", url, headers=headers, follow_redirects=True) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink()
                raise wrong_size(remote.repo, remote.name, remote.size_bytes, f"at most {start:,}")
            self._check(response, remote.repo)
            if response.headers.get("content-range", "").partition("-")[0] != f"bytes {start}":
                start = 0
            with part.open("r+b" if start else "wb") as file:
                file.seek(start)
                # As they arrive: chunks of a fixed size are collected first, and lost on a break.
                for chunk in response.iter_bytes():
                    file.write(chunk)
                    start += len(chunk)
                    on_position(start)
                    if self.stopped.is_set() or start > remote.size_bytes:
                        break
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        if self.stopped.is_set():
            raise Stopped()

    # -- requests -----------------------------------------------------------------------------

    def _ask(self, method: str, url: str, repo: str) -> httpx.Response:
        failures = 0
        while True:
            try:
                # An API answer may be moved (a renamed repository); a file's HEAD is looked at.
                response = self.http.request(method, url, follow_redirects=method == "GET")
                self._check(response, repo)
                return response
            except (httpx.TransportError, _Busy) as error:
                failures += 1
                self._pause_or_give_up(failures, error)

    def _url(self, repo: str, commit: str, name: str) -> str:
        return f"{self.endpoint}/{repo}/resolve/{quote(commit, safe='')}/{quote(name)}"

    def _check(self, response: httpx.Response, repo: str) -> None:
        """Raises what a refusal means; _Busy when it may pass."""
        if response.status_code in BUSY:
            raise _Busy(response)
        if response.status_code >= 400:
            raise refusal(response, repo, self.endpoint, bool(self.token))

    def _pause_or_give_up(self, failures: int, error: Exception) -> None:
        # No connection at all is rarely better seconds later, and someone waits for the answer.
        most = min(self.retries, 2) if isinstance(error, httpx.ConnectError) else self.retries
        if failures > most or isinstance(error, httpx.UnsupportedProtocol):
            raise Unavailable(
                f"{self.endpoint} is out of reach: {str(error) or type(error).__name__}.",
                code="hub_unreachable",
                next_step="Run the command again: it goes on where it stopped. Behind a proxy set "
                "HTTPS_PROXY, for a mirror HF_ENDPOINT; without a network copy the files: "
                "docs/models.md.",
            ) from error
        seconds = self.backoff_seconds * 2 ** (failures - 1)
        seconds = min(max(seconds, getattr(error, "seconds", 0.0)), LONGEST_PAUSE_SECONDS)
        if self.stopped.wait(seconds):
            raise Stopped()

    def _not_a_hub(self, why: str) -> Unavailable:
        return Unavailable(
            f"{self.endpoint} does not answer like a hub: {why}.",
            code="hub_unreachable",
            next_step=f"Check HF_ENDPOINT; the hub is {ENDPOINT}.",
        )


class Stopped(Exception):
    """The transfer was asked to end; what arrived is kept."""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
