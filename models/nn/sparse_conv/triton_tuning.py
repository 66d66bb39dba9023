"""Plans measured on a card and kept in a file, for those who rather wait once than trust a table.

Nothing is measured unless `measure_plan` is called, and nothing is read unless `load_plans` is: by
default every process rounds alike. A file once written gives the same plans wherever it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from models.nn.sparse_conv.triton_tiles import (
    Card,
    Plan,
    Problem,
    Tile,
    choose_plan,
    choose_splits,
    tiles_of,
)

_measured: dict[str, Plan] = {}


def plan_for(card: Card, problem: Problem) -> Plan:
    """The plan measured for problems of this shape, the table's where none was."""
    measured = _measured.get(_key(card, problem)) if _measured else None
    return measured or choose_plan(card, problem)


def load_plans(path: Path) -> None:
    """Plans that `save_plans` wrote are used from now on, in place of any before."""
    entries = json.loads(path.read_text())
    plans = {key: Plan(**entry | {"tile": Tile(**entry["tile"])}) for key, entry in entries.items()}
    _measured.clear()
    _measured.update(plans)


def save_plans(path: Path) -> None:
    path.write_text(json.dumps({key: asdict(plan) for key, plan in _measured.items()}, indent=1))


def forget_plans() -> None:
    _measured.clear()


def measure_plan(card: Card, problem: Problem, milliseconds: Callable[[Plan], float]) -> Plan:
    """Times every candidate, remembers the fastest and returns it."""
    best = min(candidates(card, problem), key=milliseconds)
    _measured[_key(card, problem)] = best
    return best


def candidates(card: Card, problem: Problem) -> Iterator[Plan]:
    """The table's plan, then tiles of other widths, each unsplit and split as the rule would."""
    first = choose_plan(card, problem)
    yield first
    for tile in tiles_of(card.capability, problem.dtype):
        tile = replace(tile, depth=min(tile.depth, first.tile.depth))
        splits = choose_splits(tile, card.processors, problem)
        yield from (Plan(tile, count, problem.precision) for count in sorted({1, splits}))


def _key(card: Card, problem: Problem) -> str:
    """Rows count by their octave: a plan for 220,000 serves 200,000."""
    shape = f"{problem.channels_in}>{problem.channels_out}x{problem.volume}"
    numbers = f"{str(problem.dtype).removeprefix('torch.')}/{problem.precision}"
    return f"sm_{card.capability}x{card.processors} {numbers} {shape} {problem.rows.bit_length()}"
