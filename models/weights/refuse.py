"""What is not fetched, whatever the hub offers: what is under a licence nobody has accepted.

Knows the catalogue alone, so it can say no before anything is asked.
"""

from __future__ import annotations

from collections.abc import Collection

from models.context import Unavailable
from models.weights.catalogue import WeightEntry


def refuse_licence(entry: WeightEntry, accepted: Collection[str]) -> None:
    """Raises Unavailable for a licence that restricts the use and is not among the accepted."""
    if not entry.licence.permissive and entry.licence.key not in accepted:
        raise Unavailable(
            f"{entry.name} is under the {entry.licence.name}, which restricts its use: "
            f"{entry.licence.link}",
            code="weights_licence",
            next_step=f"Read it; --accept-licence {entry.licence.key} says that you accept it.",
        )
