"""The command `meshpress`: parse, call, print.

Knows no pipeline, no queue and no HTTP route: it loads pipelines by the table's loader string, asks
services through `service.client`, and leaves serving to `service.jobs`. Importing it costs nothing.
"""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The installed command. Where even the command line does not load, the guard says why."""
    try:
        from service.cli.root import main as start
    except ImportError as error:
        from service.guard.checks import run_checks
        from service.guard.report import to_text

        report = to_text(run_checks(port=None).findings)
        sys.stderr.write(f"{report}\nmeshpress cannot start: {error}\n")
        sys.exit(2)
    start()
