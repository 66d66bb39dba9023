"""GET /v1/pipelines and GET /: what this service does, and where."""

from __future__ import annotations

from contextlib import suppress

from fastapi import APIRouter

from models.weights.catalogue import WeightEntry
from models.weights.store import find
from service import __version__
from service.choice import Asked, Choice, choose
from service.errors import PipelineUnavailable
from service.http.parts import Parts, PartsOf, in_thread
from service.http.schemas import (
    ChoiceView,
    Index,
    OptionView,
    PipelineList,
    PipelineView,
    WeightsView,
)
from service.http.submission import device_of
from service.pipeline_options import describe_options
from service.pipelines import PipelineEntry, all_formats

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
    """Names, inputs, options, weights, and whether each can run here; what `auto` would take."""
    return await in_thread(_view, parts)


def _view(parts: Parts) -> PipelineList:
    device = device_of(parts)
    chosen: dict[str, Choice] = {}
    for task in dict.fromkeys(entry.task for entry in parts.pipelines):
        with suppress(PipelineUnavailable):  # then every one of the task's says itself why not
            chosen[task] = choose(task, parts.pipelines, Asked(1), device)
    taken = {choice.entry.name for choice in chosen.values()}
    return PipelineList(
        pipelines=[
            view_pipeline(entry, parts.pipelines, default=entry.name in taken)
            for entry in parts.pipelines
        ],
        auto={task: ChoiceView(**choice.to_json()) for task, choice in chosen.items()},
    )


def view_pipeline(
    entry: PipelineEntry, table: tuple[PipelineEntry, ...], *, default: bool
) -> PipelineView:
    lacks = list(entry.lacks())
    return PipelineView(
        name=entry.name,
        task=entry.task,
        summary=entry.summary,
        default=default,
        available=not lacks,
        reason=entry.unavailable_reason(),
        commands=[lack.command for lack in lacks],
        needs=list(entry.needs),
        packages=list(entry.packages),
        gpu_memory_bytes=entry.memory_bytes,
        weights=[_view_weights(weights) for weights in entry.weight_entries()],
        fewest_inputs=entry.inputs[0],
        most_inputs=entry.inputs[1],
        media_types=list(entry.media_types),
        artifacts=list(entry.artifacts),
        formats=list(all_formats(entry, table)),
        options=[OptionView(**option) for option in describe_options(entry, table)],
    )


def _view_weights(weights: WeightEntry) -> WeightsView:
    known = all(file.size_bytes for file in weights.files if file.name.endswith(".safetensors"))
    return WeightsView(
        name=weights.name,
        repo=weights.repo,
        size_bytes=weights.known_bytes if known else None,
        licence=weights.licence.name,
        licence_link=weights.licence.link,
        permissive=weights.licence.permissive,
        present=find(weights) is not None,
        optional=weights.optional,
    )
