"""The API process: the app on uvicorn, ended cleanly by SIGTERM.

Knows sockets and signals, no endpoint. Run by the supervisor as `python -m service.http.server FD
[VERDICT]` with the listening socket's descriptor and the settings in the environment.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.http.protocol import LimitedProtocol
from service.http.refused import create_refused_app
from service.jobs.lifeline import follow_parent
from service.logs import configure_logs
from service.settings import Settings, read_settings

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 30


class Server(uvicorn.Server):
    """uvicorn's server that first tells the app to let go of long waits."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if parts := getattr(self._app.state, "parts", None):
            parts.stopping.set()
        await super().shutdown(sockets)


def run(settings: Settings, listener: socket.socket | None = None, verdict: str = "") -> None:
    """Serve until SIGTERM or SIGINT.

    listener: a bound, listening socket; without it one is opened at HOST and PORT
    verdict:  why the guard refused this machine; probes then answer 503 with it
    """
    app = create_refused_app(verdict) if verdict else create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=LimitedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,  # service.logs has set logging up
        access_log=False,  # metrics count requests; the log is for what went wrong
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, math.ceil(settings.drain_seconds)),
        server_header=False,
    )
    # uvicorn raises the signal again once it has stopped; that is not a failure of ours.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_cleanly)
    Server(config, app).run([listener] if listener is not None else None)


def _exit_cleanly(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> None:
    settings = read_settings()
    configure_logs(settings, process="api")
    follow_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    listener = socket.socket(fileno=int(sys.argv[1])) if len(sys.argv) > 1 else None
    run(settings, listener, *sys.argv[2:])


if __name__ == "__main__":
    main()
