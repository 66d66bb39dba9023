"""A job as the service last described it, and a handle to go on with it.

Knows no HTTP: its methods call the client it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import NotFound

if TYPE_CHECKING:
    from .api import Client, FilePath

FINAL_STATES = frozenset({"succeeded", "failed", "cancelled", "expired"})


@dataclass(frozen=True)
class Job:
    """A job as the service last described it, and a handle to go on with it.

    data: the job's JSON, whole. The methods ask the service and return a new Job.
    """

    id: str
    task: str
    state: str
    data: Mapping[str, Any] = field(repr=False)
    client: Client = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, row: Mapping[str, Any], client: Client) -> Job:
        return cls(str(row["id"]), str(row["task"]), str(row["state"]), row, client)

    @property
    def finished(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def progress(self) -> tuple[str, float, str]:
        """Stage, fraction of the whole job (0..1), message."""
        facts = self.data.get("progress") or {}
        fraction = float(facts.get("fraction") or 0.0)
        return str(facts.get("stage") or ""), fraction, str(facts.get("message") or "")

    @property
    def report(self) -> Mapping[str, Any]:
        return self.data.get("report") or {}

    @property
    def artifacts(self) -> list[dict[str, Any]]:
        """name, media_type, size_bytes, sha256, url of each result; the main one first."""
        return list(self.data.get("artifacts") or ())

    def refresh(self) -> Job:
        return self.client.get(self.id)

    def cancel(self) -> Job:
        return self.client.cancel(self.id)

    def wait(self, **options: Any) -> Job:
        return self.client.wait(self, **options)

    def download(self, out: FilePath, name: str | None = None) -> Path:
        return self.client.download(self, out, name)

    def artifact(self, name: str | None = None) -> dict[str, Any]:
        """The artifact of that name, or the main one. Raises NotFound listing the names."""
        for artifact in self.artifacts:
            if name is None or artifact["name"] == name:
                return artifact
        names = ", ".join(artifact["name"] for artifact in self.artifacts)
        wanted = f"artifact {name!r}" if name else "artifacts"
        raise NotFound(
            f"Job {self.id} ({self.state}) has no {wanted}.",
            code="artifact_not_found",
            next_step=f"Use one of: {names}." if names else "Wait until the job has succeeded.",
        )
