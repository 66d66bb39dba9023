"""The address of a service, as an option's type: checked where it is read.

Knows nothing of what is asked there.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import click


class ServiceAddress(click.ParamType):  # type: ignore[type-arg] # generic only in newer clicks
    """http://host:port, https too, with a path in front of the API or without."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        parts = urlsplit(str(value))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            self.fail(f"{value!r} is no address; write it as http://127.0.0.1:8080.", param, ctx)
        return str(value).rstrip("/")
