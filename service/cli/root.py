"""The verbs, and how each ends: exit code and, for an error, one line with the next step.

Knows what no single verb does. Exit codes: 0 done; 1 the job failed, or the service did; 2 the
command line or a setting is wrong; 130 stopped by Ctrl-C. `doctor` has its own: 1 for warnings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from service import __version__
from service.cli.convert import mesh, sog
from service.cli.doctor import doctor
from service.cli.jobs import jobs
from service.cli.models import models
from service.cli.serve import serve

FAILED, USAGE, INTERRUPTED = 1, 2, 130


@click.group(
    commands=[mesh, sog, serve, jobs, models, doctor],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="meshpress", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def cli() -> None:
    """Images to textured meshes, Gaussian splats to SOG bundles: here or on a service."""


def main() -> NoReturn:
    """The entry point of the installed command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str], pipelines: Any = None) -> int:
    """Run the command line; returns the exit code and never raises, unless asked to `--debug`.

    pipelines: PipelineEntry values in place of the table of `service.pipelines`
    """
    debug = "--debug" in arguments  # anywhere: one adds it at the end of the line that failed
    words = [word for word in arguments if word != "--debug"]
    try:
        code = cli.main(words, "meshpress", standalone_mode=False, obj=pipelines)
        return int(code or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; give Python's exit nothing left to flush into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if debug:
            raise
        line, code = describe(error)
        click.echo(line, err=True)
        return code


def describe(error: Exception) -> tuple[str, int]:
    """An exception as one line with the next step, and its exit code."""
    from models.context import Cancelled, PipelineError
    from service.errors import InvalidOptions, MeshpressError, NotFound
    from service.settings import SettingError

    if isinstance(error, Cancelled):
        return "Cancelled: nothing was written.", INTERRUPTED
    if isinstance(error, MeshpressError | PipelineError) or _from_client(error):
        message, next_step = getattr(error, "message", ""), getattr(error, "next_step", "")
        if isinstance(error, InvalidOptions):
            next_step = "--help lists every option with its range and default."
        line = f"Error: {_sentence(message)} {next_step}".rstrip()
        return line, USAGE if isinstance(error, InvalidOptions | NotFound) else FAILED
    if isinstance(error, SettingError):
        return f"Error: {error}", USAGE
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"Error: {error.strerror or error}{where}.", FAILED
    return (
        f"Error: {type(error).__name__}: {error}. This should not happen; "
        "add --debug to see where.",
        FAILED,
    )


def _from_client(error: Exception) -> bool:
    """Without importing the client, and with it httpx, into a run that never used it."""
    client = sys.modules.get("service.client")
    return client is not None and isinstance(error, client.MeshpressClientError)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
