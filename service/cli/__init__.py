"""The command `meshpress`: parse, call, print.

Knows no pipeline, no queue and no HTTP route: it loads pipelines by the table's loader string, asks
services through `service.client`, and leaves serving to `service.jobs`. Importing it costs click.
"""

from service.cli.root import main

__all__ = ["main"]
