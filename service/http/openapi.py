"""What OpenAPI cannot derive from the handlers: raw bodies, options as parameters, examples.

Derived from the pipeline table, so a new option documents itself. Knows no handler.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.http.schemas import EXAMPLE_ID, JobView, Problem
from service.jobs.records import Priority
from service.pipeline_options import accepted_properties
from service.pipelines import AUTO, PIPELINES

Docs = dict[str, Any]
Responses = dict[int | str, Docs]

_BINARY: Docs = {"schema": {"type": "string", "format": "binary"}}


def _problem(description: str) -> Docs:
    return {
        "description": description,
        "content": {
            "application/problem+json": {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": Problem.model_config["json_schema_extra"]["example"],  # type: ignore[index]
            }
        },
    }


PROBLEMS: Responses = {
    "4XX": _problem(
        "The request is at fault, or what it needs is not here; `detail` says what and `next_step` "
        "what to do."
    ),
    "5XX": _problem("The service is at fault; `request_id` is in its log."),
}
"""Of every endpoint."""

ACCEPTED: Responses = {
    200: {"model": JobView, "description": "`Prefer: wait=N`: the job has ended."},
    202: {
        "description": "Queued.",
        "headers": {
            "Location": {
                "description": "The job.",
                "schema": {"type": "string"},
                "example": f"/v1/jobs/{EXAMPLE_ID}",
            },
            "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}},
            "Idempotency-Replayed": {
                "description": "`true` when the key brought back an earlier job.",
                "schema": {"type": "string"},
            },
        },
    },
}

FILE_RESULT: dict[str, Responses] = {
    "mesh": {
        200: {
            "description": "The file. `Link` leads to the job and to its other files.",
            "content": {
                "model/gltf-binary": _BINARY,
                "model/stl": _BINARY,
                "application/ply": _BINARY,
                "application/zip": _BINARY,
                "application/octet-stream": _BINARY,
            },
        }
    },
    "splat": {
        200: {
            "description": "The file. `Link` leads to the job, its report and its other files.",
            "content": {
                "application/zip": _BINARY,
                "application/ply": _BINARY,
                "application/octet-stream": _BINARY,
            },
        }
    },
}

ARTIFACT_BYTES: Responses = {
    200: {
        "description": "The whole file.",
        "content": {"application/octet-stream": _BINARY},
        "headers": {
            "ETag": {"description": "The file's SHA-256.", "schema": {"type": "string"}},
        },
    },
    206: {
        "description": "The range that was asked for.",
        "content": {"application/octet-stream": _BINARY},
    },
    304: {"description": "The client has it already (If-None-Match)."},
}

EVENT_STREAM: Responses = {
    200: {
        "description": "Events `state`, `progress`, `done`; data is the job, id its version.",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'event: state\nid: 2\ndata: {"id": "…", "state": "running"}\n\n',
            }
        },
    },
    204: {"description": "Nothing newer than Last-Event-ID will come."},
}


def install(app: FastAPI) -> None:
    """Make `app.openapi()` know the problem document and nothing of the framework's errors."""

    def build() -> Docs:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                license_info=app.license_info,
                routes=app.routes,
            )
            schemas = document["components"]["schemas"]
            schemas["Problem"] = Problem.model_json_schema()
            # The framework drops nulls, from examples too, where they are the point.
            schemas["JobView"]["example"] = JobView.model_json_schema()["example"]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]


def submission_docs(task: str) -> Docs:
    """Body, query parameters and headers of an endpoint that takes files for `task`."""
    entries = [entry for entry in PIPELINES if entry.task == task]
    media_types = dict.fromkeys(name for entry in entries for name in entry.media_types)
    most = max(entry.inputs[1] for entry in entries)
    options = _options(task)
    form = {
        "type": "object",
        "properties": {
            "file": {
                "type": "array",
                "items": {"type": "string", "format": "binary"},
                "maxItems": most,
                "description": f"1 to {most} files in order; the part's name is free.",
            },
            **options,
        },
        "required": ["file"],
    }
    return {
        "requestBody": {
            "required": True,
            "description": "The file's bytes, or a form with files and options.",
            "content": {
                **{name: _BINARY for name in media_types},
                "multipart/form-data": {"schema": form},
            },
        },
        "parameters": [
            *(
                {
                    "name": name,
                    "in": "query",
                    "description": schema.get("description", ""),
                    "schema": schema,
                    "explode": True,
                }
                for name, schema in options.items()
            ),
            _header("Idempotency-Key", "Repeats with this key return the first one's job.", "a1"),
            _header("Prefer", "`wait=N`: answer when the job ends or after N seconds.", "wait=60"),
            _header("X-Filename", "A label for a raw body's file.", "chair.png"),
        ],
    }


def _options(task: str) -> dict[str, Docs]:
    """Each option of the task's pipelines with its schema; `pipeline` and `priority` first."""
    entries = [entry for entry in PIPELINES if entry.task == task]
    options: dict[str, Docs] = {
        "pipeline": {
            "type": "string",
            "enum": [AUTO, *(entry.name for entry in entries)],
            "default": AUTO,
            "description": "auto: the best that can do it here; GET /v1/pipelines describes them.",
        },
        "priority": {"type": "string", "enum": list(Priority), "default": Priority.NORMAL},
    }
    return options | {
        name: dict(schema) for name, schema in accepted_properties(entries, PIPELINES).items()
    }


def _header(name: str, description: str, example: str) -> Docs:
    return {
        "name": name,
        "in": "header",
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }
