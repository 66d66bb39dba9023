"""`meshpress serve`: the whole service, or one role of it.

Knows the settings table, from which its options come, and nothing of what the settings do.
"""

from __future__ import annotations

import errno
import signal
import sys
from dataclasses import Field, fields
from typing import Any

import click

from service.settings import PREFIX, SettingError, Settings, read_settings

NO_LISTENING = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})
NOUNS = {"int": "integer", "float": "number", "Path": "path"}
NOT_FOR_SERVING = frozenset({"server"})


class SettingValue(click.ParamType):  # type: ignore[type-arg] # generic only in newer clicks
    """A setting's own parser, as click wants it: the same refusal as in the environment."""

    def __init__(self, setting: Field[Any]) -> None:
        self.name = setting.metadata["unit"] or NOUNS.get(str(setting.type), "text")
        self._parse = setting.metadata["parse"]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(str(value))
        except SettingError as error:
            self.fail(f"{value!r} is not allowed; allowed: {error}.", param, ctx)


def _setting_options() -> list[click.Parameter]:
    """One option per setting; what is not given comes from the environment, then the table."""
    return [
        click.Option(
            ["--" + setting.name.replace("_", "-"), setting.name],
            type=SettingValue(setting),
            help=f"{setting.metadata['help']}  [{PREFIX}{setting.name.upper()}; "
            f"default: {setting.default if setting.default != '' else 'none'}]",
        )
        for setting in fields(Settings)
        if setting.name not in NOT_FOR_SERVING
    ]


@click.command("serve", short_help="Serve both pipelines over HTTP.")
@click.option(
    "--role",
    type=click.Choice(["all", "api", "worker"]),
    default="all",
    show_default=True,
    help="all: API and workers; api, worker: one of them, beside others on the same queue.",
)
def serve(role: str, **values: Any) -> int:
    """Serve both pipelines over HTTP, behind one durable queue."""
    # Process 1 of a container ignores a signal without a handler, and loading what serves takes a
    # second or more: until then, told to stop means gone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = read_settings(**values)
    from service.jobs.supervisor import run

    try:
        return run(settings, role, on_listening=lambda url: click.echo(_welcome(url), err=True))
    except OSError as error:
        if error.errno not in NO_LISTENING:
            raise
        raise click.ClickException(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another "
            "with --port or --host; `meshpress doctor` says what is free."
        ) from error


serve.params += _setting_options()


def _welcome(url: str) -> str:
    """One line: where it is, and a command that proves it."""
    url = url.replace("//0.0.0.0:", "//127.0.0.1:")
    return (
        f"meshpress listens on {url}  try: curl -sSf --data-binary @chair.png {url}/v1/mesh "
        "-o chair.glb"
    )
