"""The app of a machine the guard refused with GUARD=serve: every answer is the reason.

Knows neither queue nor storage: they may be what is broken. `/healthz` stays 200, since the process
is alive; everything else is 503 with the guard's words, so that whoever probes it can read them.
"""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from service import __version__
from service.errors import NotReady
from service.http.problems import install
from service.http.schemas import Liveness


def create_refused_app(verdict: str) -> FastAPI:
    app = FastAPI(title="meshpress", version=__version__, docs_url=None, redoc_url=None)
    install(app, [])

    @app.get("/healthz")
    async def get_health() -> Liveness:
        return Liveness(status="ok", version=__version__)

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "DELETE"])
    async def refuse(request: Request, path: str) -> Response:
        raise NotReady(
            verdict,
            code="refused_by_guard",
            next_step="Run `meshpress doctor` on this machine; it names a remedy for each finding.",
        )

    return app
