"""`meshpress models`: which weights there are, fetch them, check them.

Knows the catalogue and where weights lie, not what is in them. The HTTP library is loaded only to
fetch, rich only for a table on a terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.progress import OnProgress, show_progress
from service.cli.refused import Refused
from service.cli.table import print_table

if TYPE_CHECKING:
    from models.weights.catalogue import WeightEntry
    from models.weights.verify import Verdict

COLUMNS = ("name", "licence", "size", "needed by", "state")


@click.group("models")
def models() -> None:
    """The networks' weights: list, fetch, check."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def list_models(as_json: bool) -> None:
    """All weights: licence, size, which pipelines need them, and whether they are here."""
    from models.weights.catalogue import CATALOGUE
    from models.weights.store import find

    folder = _folder()
    rows = [_facts(entry, find(entry, folder)) for entry in CATALOGUE]
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "models": rows}, indent=2))
        return
    print_table(COLUMNS, [_row(facts) for facts in rows])
    click.echo(f"Folder: {folder}", err=True)


@models.command("pull")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--accept-licence", "accepted", multiple=True, metavar="NAME",
    help="Accept a licence that restricts the use, by its short name; a terminal is asked.",
)  # fmt: skip
@click.option(
    "--again", is_flag=True, help="Compare what is here with the hub, and fetch what differs."
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
@click.option("--quiet", "-q", is_flag=True, help="No progress, no hints.")
def pull_models(
    names: Sequence[str], accepted: Sequence[str], again: bool, as_json: bool, quiet: bool
) -> None:
    """Fetch weights from the Hugging Face hub; what was interrupted goes on where it stopped.

    NAME is one of `meshpress models list`, or a pipeline, for everything it needs. Safetensors of
    one commit, each file compared with the hub's hash. A licence that restricts the use is shown,
    and must be accepted once; that is recorded beside the weights. HF_TOKEN, HF_ENDPOINT, HF_HOME
    and HF_HUB_OFFLINE mean what they mean to the hub's own tools.

    \b
    meshpress models pull trellis
    meshpress models pull birefnet dinov2-large-registers
    meshpress models pull reconviagen --accept-licence vggt
    """
    entries = _entries(names)
    _show_licences(entries, quiet)
    said = _accept(entries, accepted, ask=not quiet and not as_json)
    pulled = []
    for entry in entries:
        with show_progress(entry.name, quiet) as on_progress:
            pulled.append((entry, _pull(entry, said, again, on_progress)))
        if not as_json:
            click.echo(str(pulled[-1][1]["path"]))
    if as_json:
        facts = [{"name": entry.name, **facts} for entry, facts in pulled]
        click.echo(json.dumps({"models": facts}, indent=2))


@models.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def verify_models(names: Sequence[str], as_json: bool, quiet: bool) -> int:
    """Read the weights that are here and compare every byte with its record: exit code 0 or 1.

    Without NAME everything that is here. The record is the lock file that `pull` wrote beside the
    weights, and the hashes of the catalogue.
    """
    from models.weights.catalogue import CATALOGUE
    from models.weights.store import places
    from models.weights.verify import verify

    folder = _folder()
    entries = _entries(names) if names else CATALOGUE
    found: list[dict[str, Any]] = []
    good = True
    for entry in entries:
        place = next((place for place in places(entry, folder) if place.is_dir()), None)
        if place is None:
            if names:
                good = False
                found.append({"name": entry.name, "path": None, "ok": False, "files": []})
                click.echo(
                    f"{entry.name}: not here; `meshpress models pull {entry.name}`", err=True
                )
            continue
        with show_progress(entry.name, quiet) as on_progress:
            meter = _Reading(sum(_size(place / file.name) for file in entry.files), on_progress)
            verdicts = list(verify(entry, place, meter.add))
        ok = all(verdict.good for verdict in verdicts)
        good = good and ok
        found.append(_judged(entry, place, verdicts))
        if not as_json:
            _tell(entry, place, verdicts)
    if as_json:
        click.echo(json.dumps({"models": found}, indent=2))
    elif not found:
        click.echo(f"No weights in {folder}.", err=True)
    return 0 if good else 1


# -- work ----------------------------------------------------------------------------------------


def _folder() -> Path:
    """Where weights go; a misspelt or wrong setting is refused as everywhere."""
    from models.weights.store import models_folder
    from service.settings import read_settings

    return models_folder({**os.environ, "MESHPRESS_MODELS_DIR": read_settings().models_dir})


def _entries(names: Sequence[str]) -> Sequence[WeightEntry]:
    from models.context import Unavailable
    from models.weights.catalogue import find_entries

    try:
        return find_entries(names)
    except Unavailable as error:
        raise Refused(f"{error.message} {error.next_step}") from None


def _accept(entries: Sequence[WeightEntry], given: Sequence[str], *, ask: bool) -> frozenset[str]:
    """The short names of the licences that are accepted, recorded as such.

    All that can be refused is, before the first byte of anything.
    """
    from models.context import Unavailable
    from models.weights import licences
    from models.weights.pickles import check_converter
    from models.weights.refuse import refuse_licence

    folder = _folder()
    said = licences.accepted(folder) | {word.lower() for word in given}
    bound = [entry.licence for entry in entries if not entry.licence.permissive]
    if ask and sys.stdin.isatty() and sys.stderr.isatty():
        for licence in dict.fromkeys(bound):
            if licence.key not in said and click.confirm(
                f"Do you accept the {licence.name} ({licence.link})?", err=True
            ):
                said |= {licence.key}
    for entry in entries:
        try:
            refuse_licence(entry, said)
            check_converter(entry)
        except Unavailable as error:
            raise Refused(f"{error.message} {error.next_step}") from None
    licences.accept(folder, bound)
    return said


def _show_licences(entries: Sequence[WeightEntry], quiet: bool) -> None:
    for entry in () if quiet else entries:
        licence = entry.licence
        kind = "" if licence.permissive else ", which restricts the use"
        text = f"{entry.name}: {entry.repo}, licence {licence.name}{kind} ({licence.link})"
        click.echo(text, err=True)


def _pull(
    entry: WeightEntry, accepted: frozenset[str], again: bool, on_progress: OnProgress
) -> dict[str, Any]:
    from models.weights.store import find

    folder = _folder()
    if not again and (place := find(entry, folder)) is not None:
        return {"path": str(place), "fetched_bytes": 0}
    from models.weights.hub import Hub
    from models.weights.pull import pull

    hub = Hub.from_environment()
    try:
        done = pull(
            entry, folder, hub, accepted_licences=accepted, again=again, on_progress=on_progress
        )
    finally:
        hub.close()
    return {"path": str(done.place), "fetched_bytes": done.fetched_bytes}


class _Reading:
    """Bytes read so far as progress."""

    def __init__(self, total_bytes: int, on_progress: OnProgress) -> None:
        self._total, self._done, self._tell = max(1, total_bytes), 0, on_progress

    def add(self, count: int) -> None:
        self._done += count
        self._tell("reading", min(1.0, self._done / self._total), "")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


# -- words ---------------------------------------------------------------------------------------


def _facts(entry: WeightEntry, place: Path | None) -> dict[str, Any]:
    return {
        "name": entry.name,
        "summary": entry.summary,
        "repo": entry.repo,
        "revision": entry.revision,
        "licence": entry.licence.name,
        "licence_link": entry.licence.link,
        "permissive": entry.licence.permissive,
        "known_bytes": entry.known_bytes,
        "pipelines": list(entry.pipelines),
        "optional": entry.optional,
        "pickled": entry.pickled,
        "path": str(place) if place is not None else None,
    }


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    from models.weights.units import in_units

    size = in_units(facts["known_bytes"]) if facts["known_bytes"] else "asked at the pull"
    needed = ", ".join(facts["pipelines"]) + (" (optional)" if facts["optional"] else "")
    state = facts["path"] or "not here"
    return facts["name"], facts["licence"], size, needed, state


def _judged(entry: WeightEntry, place: Path, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    return {
        "name": entry.name,
        "path": str(place),
        "ok": all(verdict.good for verdict in verdicts),
        "files": [
            {
                "name": verdict.name,
                "state": str(verdict.state),
                "detail": verdict.detail,
                "sha256": verdict.sha256,
            }
            for verdict in verdicts
        ],
    }


def _tell(entry: WeightEntry, place: Path, verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        detail = f": {verdict.detail}" if verdict.detail else ""
        click.echo(f"{verdict.state}\t{place / verdict.name}{detail}")
    if not all(verdict.good for verdict in verdicts):
        click.echo(f"Repair it with `meshpress models pull {entry.name} --again`.", err=True)
