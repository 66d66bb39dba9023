"""What goes wrong on the way from a hub to the disk, in words with what the user can do about it.

Knows HTTP's answers and the system's error numbers; raises nothing itself.
"""

from __future__ import annotations

import errno
from pathlib import Path

import httpx

from models.context import Unavailable

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def refusal(response: httpx.Response, repo: str, endpoint: str, with_token: bool) -> Unavailable:
    """What a 4xx of the hub means, and what to do about it."""
    code = response.headers.get("x-error-code", "")
    page = f"{endpoint}/{repo}"
    if code == "GatedRepo" or (response.status_code == 403 and code != "RepoNotFound"):
        sign_in = "" if with_token else " Then make a token there and set HF_TOKEN."
        return Unavailable(
            f"{repo} is gated: its owners give access on request.",
            code="weights_gated",
            next_step=f"Sign in at {page} and accept the terms.{sign_in}",
        )
    if response.status_code == 401 and not with_token:
        return Unavailable(
            f"{repo} does not exist at {endpoint}, or is private.",
            code="weights_gated",
            next_step="If you have access, set HF_TOKEN to a token of yours.",
        )
    if response.status_code == 401:
        return Unavailable(
            f"{endpoint} does not accept the token, or it has no access to {repo}.",
            code="weights_gated",
            next_step="Set HF_TOKEN to a valid token, or unset it.",
        )
    what = {"RevisionNotFound": "the commit", "EntryNotFound": "the file"}.get(code, "this")
    return Unavailable(
        f"{endpoint} has not got {what} any more: {response.request.url} answers "
        f"{response.status_code} {response.reason_phrase}.",
        code="weights_not_found",
        next_step=f"Look at {page}; a newer meshpress may name another commit.",
    )


def disk_full(folder: Path, error: OSError) -> Exception:
    """An error of writing, as what the user can do about it; another error stays what it is."""
    if error.errno not in FULL:
        return error
    return Unavailable(
        f"The disk of {folder} is full.",
        code="weights_disk_full",
        next_step="Make room, or choose another folder with MESHPRESS_MODELS_DIR; then run the "
        "command again: it goes on where it stopped.",
    )


def wrong_size(repo: str, name: str, size_bytes: int, got: str) -> Unavailable:
    return Unavailable(
        f"{name} of {repo} has {size_bytes:,} bytes by the hub's own account; {got} arrived.",
        code="weights_damaged",
        next_step="Run the command again; a proxy or mirror in between may be at fault.",
    )
