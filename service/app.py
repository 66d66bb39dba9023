"""create_app(settings): the one place where the parts of the API process are joined.

Knows every part and does nothing itself: store, queue, watcher, routers, problems, metrics.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service import __version__
from service.http import (
    artifacts,
    events,
    health,
    jobs,
    oneshot,
    openapi,
    pipelines,
    problems,
    sagemaker,
)
from service.http.envelope import Envelope
from service.http.linger import Linger
from service.http.metrics import QueueCollector, RequestMetrics
from service.http.openapi import PROBLEMS
from service.http.parts import Parts, in_thread
from service.jobs.queue import JobQueue
from service.jobs.watch import JobWatcher
from service.pipelines import PIPELINES, PipelineEntry
from service.settings import Settings
from service.storage.artifacts import ArtifactStore

ROUTERS = (
    pipelines.router,
    oneshot.router,
    jobs.router,
    events.router,
    artifacts.router,
    health.router,
    sagemaker.router,
)

DESCRIPTION = """\
Images to textured meshes and Gaussian splats to SOG bundles, behind one durable job queue.

One request: `curl --data-binary @chair.png $URL/v1/mesh -o chair.glb`.
A job: `curl --data-binary @chair.png $URL/v1/jobs/mesh`, then follow its links.
"""


def create_app(
    settings: Settings,
    *,
    make_queue: Callable[[Settings, ArtifactStore], JobQueue] = JobQueue,
    table: tuple[PipelineEntry, ...] = PIPELINES,
) -> FastAPI:
    """The ASGI app. Nothing is opened before its lifespan begins.

    make_queue: a queue that is not open yet; tests bring their own
    table:      the pipelines that can be asked for
    """
    metrics = RequestMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        store = ArtifactStore(settings.effective_storage_url, settings.data_dir)
        queue = make_queue(settings, store)
        await in_thread(queue.open)
        watcher = JobWatcher(queue)
        app.state.parts = Parts(settings, store, queue, watcher, pipelines=table)
        app.state.readiness = health.ReadinessProbe()
        collector = QueueCollector(queue)
        metrics.registry.register(collector)
        try:
            yield
        finally:
            metrics.registry.unregister(collector)
            await watcher.close()
            await in_thread(queue.close)

    app = FastAPI(
        title="meshpress",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        redirect_slashes=False,
        responses=PROBLEMS,
    )
    app.state.registry = metrics.registry
    for router in ROUTERS:
        app.include_router(router)
    routes = [route for router in ROUTERS for route in router.routes]
    problems.install(app, [route for route in routes if isinstance(route, APIRoute)])
    openapi.install(app)
    app.add_middleware(Envelope, metrics=metrics)  # inside Linger, added last
    app.add_middleware(Linger)
    return app
