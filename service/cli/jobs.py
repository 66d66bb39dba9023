"""`meshpress jobs`: the jobs of a running service, as tables, lines or JSON.

Knows the client's `Job`, not the queue. rich is loaded only for a table on a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.address import ServiceAddress
from service.cli.progress import show_progress
from service.cli.refused import Refused
from service.cli.table import print_table

if TYPE_CHECKING:
    from service.client import Client, Job

COLUMNS = ("id", "task", "state", "progress", "created", "result")
STATES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled", "expired")


def _asking(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every verb here."""
    command = click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")(command)
    return click.option(
        "--server",
        type=ServiceAddress(),
        metavar="URL",
        help="The service; default: MESHPRESS_SERVER, or this machine's.",
    )(command)


@click.group("jobs")
def jobs() -> None:
    """List, follow, cancel and fetch the jobs of a service."""


@jobs.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--task", type=click.Choice(["mesh", "splat"]), help="Only jobs of this task.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@_asking
def list_jobs(
    state: str | None, task: str | None, limit: int, server: str | None, as_json: bool
) -> None:
    """The latest jobs, newest first."""
    with _service(server) as client:
        found = list(client.list(limit=limit, state=state, task=task))
    if as_json:
        click.echo(json.dumps([job.data for job in found], indent=2))
    else:
        print_table(COLUMNS, [_row(job) for job in found], "No jobs.")


@jobs.command("show")
@click.argument("job_id", metavar="ID")
@_asking
def show(job_id: str, server: str | None, as_json: bool) -> None:
    """Everything about one job."""
    with _service(server) as client:
        _print_job(client.get(job_id), as_json)


@jobs.command("wait")
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Give up after this.")
@_asking
def wait(job_ids: Sequence[str], timeout: float | None, server: str | None, as_json: bool) -> int:
    """Return when the jobs have ended: exit code 0 if all succeeded, else 1."""
    with _service(server) as client:
        ended = [client.wait(job_id, timeout_seconds=timeout, check=False) for job_id in job_ids]
    for job in ended:
        _print_job(job, as_json)
    return 0 if all(job.state == "succeeded" for job in ended) else 1


@jobs.command("watch")
@click.argument("job_id", metavar="ID")
@_asking
def watch(job_id: str, server: str | None, as_json: bool) -> int:
    """Follow one job to its end; with --json, one line of JSON for each change."""
    with _service(server) as client, show_progress(job_id, quiet=as_json) as on_progress:
        for job in client.watch(job_id):
            if as_json:
                click.echo(json.dumps(job.data))
                continue
            stage, fraction, message = job.progress
            on_progress(stage or job.state, fraction, message or _note(job))
    if not as_json:
        _print_job(job, as_json)
    return 0 if job.state == "succeeded" else 1


@jobs.command("cancel")
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@_asking
def cancel(job_ids: Sequence[str], server: str | None, as_json: bool) -> None:
    """Stop jobs; those that run get a moment to stop by themselves."""
    with _service(server) as client:
        for job_id in job_ids:
            _print_job(client.cancel(job_id), as_json)


@jobs.command("download")
@click.argument("job_id", metavar="ID")
@click.argument("name", required=False, metavar="[ARTIFACT]")
@click.option("--output", "-o", default=".", metavar="FILE", help="A file, or a folder.")
@click.option("--overwrite", "-w", is_flag=True, help="Replace a file that exists.")
@_asking
def download(
    job_id: str, name: str | None, output: str, overwrite: bool, server: str | None, as_json: bool
) -> None:
    """Fetch one result (default: the main one); a broken download goes on where it stopped."""
    with _service(server) as client:
        job = client.get(job_id)
        target = Path(output)
        if target.is_dir():
            target = target / Path(job.artifact(name)["name"]).name
        if target.exists() and not overwrite:
            raise Refused(f"{target} exists; add -w to overwrite it.")
        path = client.download(job, target, name)
    click.echo(json.dumps({"path": str(path)}) if as_json else str(path))


@contextmanager
def _service(url: str | None) -> Iterator[Client]:
    from service.client import Client
    from service.settings import read_settings

    address = ServiceAddress().convert(url or read_settings().server, None, None)
    # Someone is waiting at the prompt: fewer second tries than a program would make.
    with Client(address, retries=1) as client:
        yield client


def _row(job: Job) -> tuple[str, ...]:
    created = str(job.data.get("created_at", ""))[:19].replace("T", " ")
    return job.id, job.task, job.state, _note(job), created, _result(job)


def _note(job: Job) -> str:
    """Where a job stands that has not ended, in a word or two."""
    if job.finished:
        return ""
    position = job.data.get("queue_position")
    if position:
        return f"number {position} in the queue"
    stage, fraction, _ = job.progress
    return f"{fraction:.0%} {stage}".rstrip()


def _result(job: Job) -> str:
    error = job.data.get("error") or {}
    return error.get("code") or ", ".join(row["name"] for row in job.artifacts)


def _print_job(job: Job, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(job.data, indent=2))
        return
    error = job.data.get("error") or {}
    facts = {
        "id": job.id,
        "task": job.task,
        "state": job.state,
        "progress": _note(job),
        "created": job.data.get("created_at"),
        "started": job.data.get("started_at"),
        "finished": job.data.get("finished_at"),
        "error": " ".join(filter(None, (error.get("message"), error.get("next_step")))),
    }
    for artifact in job.artifacts:
        facts[artifact["name"]] = f"{artifact['size_bytes']} bytes, sha256 {artifact['sha256']}"
    for name, value in facts.items():
        if value:
            click.echo(f"{name:<12}{value}")
