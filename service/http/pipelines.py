"""GET /v1/pipelines and GET /: what this service does, and where."""

from __future__ import annotations

from fastapi import APIRouter

from service import __version__
from service.http.parts import PartsOf, in_thread
from service.http.schemas import Index, OptionView, PipelineList, PipelineView
from service.pipelines import DEFAULT_PIPELINE, PipelineEntry, describe_options

router = APIRouter(tags=["service"])


@router.get("/", summary="Where things are")
async def get_index() -> Index:
    return Index(
        name="meshpress",
        version=__version__,
        links={
            "mesh": "/v1/mesh",
            "splat": "/v1/splat",
            "jobs": "/v1/jobs",
            "pipelines": "/v1/pipelines",
            "ready": "/readyz",
            "metrics": "/metrics",
            "docs": "/docs",
            "openapi": "/openapi.json",
        },
    )


@router.get("/v1/pipelines", summary="Pipelines and their options")
async def list_pipelines(parts: PartsOf) -> PipelineList:
    """Names, inputs, options with ranges and defaults, and whether each can run here."""
    views = await in_thread(lambda: [view_pipeline(entry) for entry in parts.pipelines])
    return PipelineList(pipelines=views)


def view_pipeline(entry: PipelineEntry) -> PipelineView:
    reason = entry.unavailable_reason()
    return PipelineView(
        name=entry.name,
        task=entry.task,
        summary=entry.summary,
        default=DEFAULT_PIPELINE[entry.task] == entry.name,
        available=not reason,
        reason=reason,
        needs=list(entry.needs),
        fewest_inputs=entry.inputs[0],
        most_inputs=entry.inputs[1],
        media_types=list(entry.media_types),
        artifacts=list(entry.artifacts),
        options=[OptionView(**option) for option in describe_options(entry)],
    )
