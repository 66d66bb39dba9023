"""Which licences that restrict the use have been accepted: recorded beside the weights, or said by
a setting.

Knows neither the hub nor what the weights are. Whoever pulls says so once; an image or a model
folder of a service says it with MESHPRESS_ACCEPTED_LICENCES.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from models.weights.catalogue import Licence

RECORD_NAME = "accepted-licences.json"
SETTING = "MESHPRESS_ACCEPTED_LICENCES"


def accepted(folder: Path, environment: Mapping[str, str] | None = None) -> frozenset[str]:
    """The keys of the licences that are accepted here."""
    environment = os.environ if environment is None else environment
    said = (word.strip().lower() for word in environment.get(SETTING, "").split(","))
    return frozenset(word for word in said if word) | frozenset(_record(folder))


def accept(folder: Path, licences: Iterable[Licence]) -> None:
    """Write down that these are accepted, and since when; what is written already stays."""
    record = _record(folder)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new = {
        licence.key: {"name": licence.name, "link": licence.link, "accepted_at": now}
        for licence in licences
        if licence.key not in record
    }
    if not new:
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{RECORD_NAME}.{os.getpid()}.partial"
    partial.write_text(json.dumps(record | new, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / RECORD_NAME)


def _record(folder: Path) -> dict[str, object]:
    """What is written down; nothing where there is no record or it is not one of ours."""
    try:
        record = json.loads((folder / RECORD_NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
