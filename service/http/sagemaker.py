"""SageMaker's container contract: GET /ping, POST /invocations.

The only file that knows SageMaker. The same queue as everything else: the file comes as the body,
options in the one header the platform lets through, and the answer is the result itself.
"""

from __future__ import annotations

import re

from fastapi import APIRouter, Request, Response

from service.errors import InvalidOptions, InvalidRequest, UnsupportedMediaType
from service.http.body import media_type_of
from service.http.health import readiness_of
from service.http.oneshot import answer_with_file, apply_accept, finish
from service.http.openapi import FILE_RESULT, PROBLEMS
from service.http.options import Wanted
from service.http.parts import PartsOf
from service.http.problems import shown
from service.http.submission import submit
from service.pipelines import PIPELINES

router = APIRouter(tags=["SageMaker"])

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
LONGEST_ATTRIBUTES = 1024
TASKS = tuple(dict.fromkeys(entry.task for entry in PIPELINES))

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@router.get(
    "/ping",
    summary="SageMaker: is the container healthy",
    response_class=Response,
    responses={200: {"description": "Healthy; empty."}, 503: {"description": "Not; empty."}},
)
async def ping(request: Request, parts: PartsOf) -> Response:
    """Readiness without words; /readyz has the reasons."""
    checks = await readiness_of(request).checks(parts)
    return Response(status_code=200 if all(check.ok for check in checks) else 503)


@router.post(
    "/invocations",
    summary="SageMaker: file in, result out",
    response_class=Response,
    responses={**FILE_RESULT["mesh"], **PROBLEMS},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                name: {"schema": {"type": "string", "format": "binary"}}
                for name in ("image/*", "application/octet-stream", "application/zip")
            },
        },
        "parameters": [
            {
                "name": ATTRIBUTES,
                "in": "header",
                "description": "Options as `name=value` separated by `;`, and `task`.",
                "schema": {"type": "string", "maxLength": LONGEST_ATTRIBUTES},
                "example": "task=mesh;formats=stl;seed=1",
            }
        ],
    },
)
async def invoke(request: Request, parts: PartsOf) -> Response:
    """The result of an image or a splat, within INVOCATION_TIMEOUT_SECONDS.

    A job that takes longer is cancelled: behind SageMaker nobody could fetch it.
    """
    header = request.headers.get(ATTRIBUTES, "")
    attributes = read_attributes(header)
    tasks = find_tasks(request, attributes)
    accept = request.headers.get("accept", "*/*")
    if media_types_are_json(accept):
        accept = "*/*"  # what SDKs send when nobody chose
    chosen: list[str] = []

    def choose(wanted: Wanted) -> Wanted:
        wanted, name = apply_accept(wanted, accept)
        chosen.append(name)
        return wanted

    options = [(name, value) for name, value in attributes if name != "task"]
    submitted = await submit(request, parts, *tasks, attributes=options, adjust=choose)
    seconds = parts.settings.invocation_timeout_seconds
    job = await finish(request, parts, submitted, seconds, cancel_on_timeout=True)
    response = await answer_with_file(request, parts, submitted, job, chosen[0])
    if header:
        response.headers[ATTRIBUTES] = header
    return response


def read_attributes(header: str) -> list[tuple[str, str]]:
    """`name=value;name=value` as pairs. Raises InvalidRequest for anything else."""
    if len(header) > LONGEST_ATTRIBUTES:
        raise InvalidRequest(
            f"{ATTRIBUTES} has {len(header)} characters; the most is {LONGEST_ATTRIBUTES}.",
            code="invalid_attributes",
        )
    pairs = []
    for element in header.split(";") if header.strip() else []:
        name, equals, value = (part.strip() for part in element.partition("="))
        if not equals or not value or not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"{ATTRIBUTES} has the element {shown(element)}, which is not name=value.",
                code="invalid_attributes",
                next_step="Write it like task=mesh;seed=1.",
            )
        pairs.append((name, value))
    return pairs


def find_tasks(request: Request, attributes: list[tuple[str, str]]) -> tuple[str, ...]:
    """The task that `task=` or the Content-Type names; all of them when the bytes must decide.

    Raises InvalidOptions for an unknown task, UnsupportedMediaType for JSON.
    """
    media_type = media_type_of(request)
    if media_type == "application/json":
        raise UnsupportedMediaType(
            "Content-Type 'application/json' is not accepted: send the file itself, not JSON.",
            next_step="Use the file's type (image/png, application/octet-stream) and put options "
            f"into {ATTRIBUTES}, like task=mesh;seed=1.",
        )
    named = {value for name, value in attributes if name == "task"}
    if unknown := sorted(named - set(TASKS)) or (sorted(named) if len(named) > 1 else []):
        raise InvalidOptions(
            f"{ATTRIBUTES} has task={','.join(unknown)}; allowed: one of {', '.join(TASKS)}.",
            details={
                "errors": [
                    {
                        "field": "task",
                        "value": ",".join(unknown),
                        "message": "not one known task",
                        "allowed": "one of " + ", ".join(TASKS),
                    }
                ]
            },
        )
    if named:
        return (named.pop(),)
    if media_type == "application/octet-stream":
        return TASKS
    by_type = tuple(
        dict.fromkeys(entry.task for entry in PIPELINES if media_type in entry.media_types)
    )
    return by_type or TASKS


def media_types_are_json(accept: str) -> bool:
    return accept.split(";")[0].strip().lower() == "application/json"
