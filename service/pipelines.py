"""The literal table of pipelines: name, task, inputs, options model, loader path, artifacts.

Never imports a pipeline: the runner resolves `loader` in its own process. Importing this module
costs two small pydantic models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from models.image_to_mesh.options import EmbeddedOptions
from models.splat_to_sog.pipeline_options import SplatOptions
from models.weights.store import Missing, missing
from service.errors import InvalidOptions, NotFound, PipelineUnavailable


@dataclass(frozen=True)
class PipelineEntry:
    """One pipeline as the service sees it.

    task:        what the user asks for: "mesh" or "splat"; the URL's last word
    loader:      "module:function"; `function(device)` returns a models.context.Pipeline
    inputs:      (fewest, most) files
    media_types: what the inputs may be; the pipeline itself looks at the bytes
    needs:       what must be present beyond the base install, for humans; empty = runs anywhere
    weights:     names in the catalogue of `models.weights`, without which it cannot run
    """

    name: str
    task: str
    summary: str
    loader: str
    options: type[BaseModel]
    inputs: tuple[int, int]
    media_types: tuple[str, ...]
    artifacts: tuple[str, ...]
    needs: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()

    def missing_weights(self) -> Missing | None:
        """Which of its weights are not here, and the command that fetches them.

        Asked anew each time: weights may come and go while a service runs.
        """
        return missing(self.weights)

    def unavailable_reason(self) -> str:
        """Why this pipeline cannot run on this machine, with what to do; empty when it can."""
        lack = self.missing_weights()
        return f"{lack}." if lack is not None else ""

    def check_available(self) -> None:
        """Raises PipelineUnavailable with the reason, and the command to run as its next step."""
        lack = self.missing_weights()
        if lack is None:
            return
        raise PipelineUnavailable(
            f"Pipeline {self.name!r} cannot run here. {lack.reason}.",
            next_step=f"Run `{lack.command}` on this machine; nothing has to be restarted.",
            details={"pipeline": self.name, "command": lack.command},
        )


IMAGES = ("image/png", "image/jpeg", "image/webp")
SPLATS = (
    "application/octet-stream",
    "application/ply",
    "model/ply",
    "application/x-ply",
    "application/vnd.gaussian-splat",
    "application/zip",
    "application/gzip",
)

PIPELINES: tuple[PipelineEntry, ...] = (
    PipelineEntry(
        name="embedded",
        task="mesh",
        summary="Silhouettes to a closed, textured mesh in about a second; no weights, no GPU.",
        loader="models.image_to_mesh.pipeline:load",
        options=EmbeddedOptions,
        inputs=(1, 16),
        media_types=IMAGES,
        artifacts=("mesh.glb", "mesh.obj.zip", "mesh.ply", "mesh.stl"),
    ),
    PipelineEntry(
        name="sog",
        task="splat",
        summary="Gaussian splats, one file or several as one scene, to a SOG or any other format.",
        loader="models.splat_to_sog.pipeline:load",
        options=SplatOptions,
        inputs=(1, 64),
        media_types=SPLATS,
        artifacts=(
            "scene.sog",
            "scene.loose.zip",
            "scene.lod.zip",
            "scene.ply",
            "scene.compressed.ply",
            "scene.spz",
        ),
    ),
)

LONGEST_VALUE = 200  # characters of a user's value that are repeated to them

DEFAULT_PIPELINE: Mapping[str, str] = {"mesh": "embedded", "splat": "sog"}


def find_pipeline(
    task: str, name: str | None = None, table: tuple[PipelineEntry, ...] = PIPELINES
) -> PipelineEntry:
    """The task's pipeline of that name, or its default. Raises NotFound listing the names."""
    wanted = name or DEFAULT_PIPELINE[task]
    for entry in table:
        if entry.task == task and entry.name == wanted:
            return entry
    names = ", ".join(entry.name for entry in table if entry.task == task)
    raise NotFound(
        f"There is no {task} pipeline named {wanted!r}.",
        code="pipeline_not_found",
        next_step=f"Use one of: {names}. GET /v1/pipelines describes them.",
    )


def validate_options(entry: PipelineEntry, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as plain JSON with defaults filled in.

    Raises InvalidOptions with field, value, message and what is allowed for each fault.
    """
    try:
        return entry.options.model_validate(dict(options)).model_dump(mode="json")
    except ValidationError as error:
        found = error.errors(include_url=False)
        # A list whose items are wrong is also "too short": one complaint is enough.
        wrong_items = {fault["loc"][0] for fault in found if len(fault["loc"]) > 1}
        described = [
            _describe(entry, fault)
            for fault in found
            if len(fault["loc"]) != 1 or fault["loc"][0] not in wrong_items
        ]
    lines = "; ".join(map(_line, described))
    raise InvalidOptions(
        f"Pipeline {entry.name!r} does not accept these options: {lines}.",
        next_step="GET /v1/pipelines lists every option with its range and default.",
        details={"errors": [one for faults in described for one in faults]},
    )


def describe_options(entry: PipelineEntry) -> list[dict[str, Any]]:
    """Each option: name, description, default, what is allowed in words, its JSON schema."""
    properties = entry.options.model_json_schema()["properties"]
    return [
        {
            "name": name,
            "description": schema.get("description", ""),
            "default": schema.get("default"),
            "allowed": _allowed(schema),
            "json_schema": schema,
        }
        for name, schema in properties.items()
    ]


def _describe(entry: PipelineEntry, fault: Any) -> list[dict[str, Any]]:
    """One pydantic fault in the user's words: field, value, message, allowed.

    Options that contradict each other are one fault of the whole; here each that the complaint
    names gets it.
    """
    properties = entry.options.model_json_schema()["properties"]
    message = fault["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if not fault["loc"]:
        given: Mapping[str, Any] = fault["input"]
        named = [name for name in given if re.search(rf"\b{name}\b", message)]
        return [
            {
                "field": name,
                "value": _short(given[name]),
                "message": message,
                "allowed": _allowed(properties[name]),
            }
            for name in named or given
        ]
    name = str(fault["loc"][0])
    described = {
        "field": ".".join(str(part) for part in fault["loc"]),
        "value": _short(fault["input"]),
        "message": message,
        "allowed": _allowed(properties.get(name, {})),
    }
    if fault["type"] == "extra_forbidden":
        close = get_close_matches(name, properties, n=1)
        described["field"] = described["field"][:LONGEST_VALUE]
        described["message"] = "unknown option" + (f", did you mean {close[0]}?" if close else "")
        described["allowed"] = "one of " + ", ".join(sorted(properties))
    return [described]


def _line(faults: Sequence[Mapping[str, Any]]) -> str:
    """What `_describe` made of one fault, as a phrase."""
    values = ", ".join(f"{fault['field']}={fault['value']!r}" for fault in faults)
    allowed = " and ".join(dict.fromkeys(fault["allowed"] for fault in faults))
    return f"{values}: {faults[0]['message']}; allowed: {allowed}"


def _short(value: Any) -> Any:
    """A user's value as it may be repeated to them: plain JSON, and cut when it is long."""
    if isinstance(value, str) and len(value) > LONGEST_VALUE:
        return value[:LONGEST_VALUE] + "…"
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return str(value)[:LONGEST_VALUE]


def _allowed(schema: Mapping[str, Any]) -> str:
    """A JSON schema's constraint as a phrase: "192, 256", "500 to 500000", "a list of …"."""
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        phrases = [_allowed(part) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(phrase for phrase in phrases if phrase)
    kind = schema.get("type", "")
    if kind in ("integer", "number"):
        noun = "a whole number" if kind == "integer" else "a number"
        return f"{noun} {_range(schema)}".rstrip()
    if kind == "array":
        length = schema.get("minItems")
        noun = "a list" if length != schema.get("maxItems") or not length else f"{length} values"
        return f"{noun}, each {_allowed(schema.get('items', {}))}"
    return {"boolean": "true or false", "string": "text"}.get(kind, str(kind))


def _range(schema: Mapping[str, Any]) -> str:
    """ "from 1 to 5", "above 0, at most 5", "of at least 1"; empty without limits."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"from {low} to {high}"
    words = {
        "of at least": low,
        "above": schema.get("exclusiveMinimum"),
        "at most": high,
        "below": schema.get("exclusiveMaximum"),
    }
    return ", ".join(f"{word} {limit}" for word, limit in words.items() if limit is not None)
