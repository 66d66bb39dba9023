"""A pipeline's options: what a request may say, checked, and described in words.

Knows JSON schema and pydantic's complaints, not what an option does. Where a pipeline's Gaussians
may go on to the splat task, a request takes the options of both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, create_model, model_validator

from service.errors import InvalidOptions
from service.pipelines import PIPELINES, PipelineEntry, all_formats, follower

LONGEST_VALUE = 200  # characters of a user's value that are repeated to them

Table = tuple[PipelineEntry, ...]
Schema = Mapping[str, Any]


def accepted_options(entry: PipelineEntry, table: Table = PIPELINES) -> type[BaseModel]:
    """The model of a request that names this pipeline: its own, or with the next step's beside."""
    then = follower(entry, table)
    return entry.options if then is None else _with_splats(entry.options, then.options)


def accepted_properties(entries: Sequence[PipelineEntry], table: Table) -> dict[str, Schema]:
    """Each option of these pipelines by name, as JSON schema; what they differ in is joined: the
    choices of both, no default. What not all of them have says whose it is."""
    merged: dict[str, Any] = {}
    owners: dict[str, list[str]] = {}
    for entry in entries:
        for name, schema in properties_of(entry, table).items():
            merged[name] = _joined(merged[name], schema) if name in merged else schema
            owners.setdefault(name, []).append(entry.name)
    for name, names in owners.items():
        if len(names) < len(entries):
            text = f"{merged[name].get('description', '')} Only {', '.join(names)}."
            merged[name] = {**merged[name], "description": text.lstrip()}
    return merged


def properties_of(entry: PipelineEntry, table: Table = PIPELINES) -> dict[str, Schema]:
    """Each option of a request that names this pipeline, its own first, as JSON schema."""
    found = _properties(accepted_options(entry, table))
    return {name: found[name] for name in (*entry.options.model_fields, *found)}


def _joined(one: Schema, other: Schema) -> Schema:
    joined = dict(one)
    if one.get("default") != other.get("default"):
        joined.pop("default", None)
    if "enum" in one and "enum" in other:
        joined["enum"] = list(dict.fromkeys((*one["enum"], *other["enum"])))
        texts = dict.fromkeys((one.get("description", ""), other.get("description", "")))
        joined["description"] = " Or: ".join(texts)
    if "enum" in one.get("items", {}):
        longer = max(one, other, key=lambda schema: len(schema["items"]["enum"]))
        choices = dict.fromkeys((*one["items"]["enum"], *other["items"]["enum"]))
        joined["description"] = longer.get("description", "")
        joined["items"] = {**one["items"], "enum": list(choices)}
    return joined


@cache
def _with_splats(mesh: type[BaseModel], splat: type[BaseModel]) -> type[BaseModel]:
    """Both models in one. Options of the second need one of its formats to act on."""
    own, later = _formats(mesh), [name for name in _formats(splat) if name not in _formats(mesh)]
    only_splat = [name for name in splat.model_fields if name not in mesh.model_fields]
    listed = ", ".join(later)

    def splat_options_need_a_splat(self: BaseModel) -> BaseModel:
        given = [name for name in only_splat if name in self.model_fields_set]
        if given and not set(later) & set(self.formats):  # type: ignore[attr-defined]
            raise ValueError(f"{', '.join(given)}: only for splats; add one of {listed} to formats")
        return self

    description = mesh.model_fields["formats"].description or ""
    joined = Annotated[
        tuple[Literal[(*own, *later)], ...],  # type: ignore[valid-type]
        Field(
            min_length=1,
            description=f"{description} {listed}: the Gaussians, written by the splat pipeline as "
            "the job's second step, which takes that pipeline's options too.",
        ),
    ]
    return create_model(
        f"{mesh.__name__}AndSplats",
        __base__=(mesh, splat),
        __doc__=mesh.__doc__,
        __validators__={
            "splat_options_need_a_splat": model_validator(mode="after")(splat_options_need_a_splat)  # type: ignore[dict-item]
        },
        formats=(joined, mesh.model_fields["formats"].default),
    )


def _formats(model: type[BaseModel]) -> tuple[str, ...]:
    """The literals of `formats: tuple[Literal[...], ...]`."""
    return get_args(get_args(model.model_fields["formats"].annotation)[0])


@cache
def _properties(model: type[BaseModel]) -> Schema:
    found: Schema = model.model_json_schema()["properties"]
    return found


def validate_options(
    entry: PipelineEntry, options: Mapping[str, Any], table: Table = PIPELINES
) -> dict[str, Any]:
    """The options as plain JSON with defaults filled in.

    Raises InvalidOptions with field, value, message and what is allowed for each fault.
    """
    try:
        model = accepted_options(entry, table)
        return model.model_validate(dict(options)).model_dump(mode="json")
    except ValidationError as error:
        found = error.errors(include_url=False)
        # A list whose items are wrong is also "too short": one complaint is enough.
        wrong_items = {fault["loc"][0] for fault in found if len(fault["loc"]) > 1}
        described = [
            _describe(entry, fault, table)
            for fault in found
            if len(fault["loc"]) != 1 or fault["loc"][0] not in wrong_items
        ]
    lines = "; ".join(map(_line, described))
    raise InvalidOptions(
        f"Pipeline {entry.name!r} does not accept these options: {lines}.",
        next_step="GET /v1/pipelines lists every option with its range and default.",
        details={"errors": [one for faults in described for one in faults]},
    )


def describe_options(entry: PipelineEntry, table: Table = PIPELINES) -> list[dict[str, Any]]:
    """Each option: name, description, default, what is allowed in words, its JSON schema."""
    properties = properties_of(entry, table)
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


def _describe(entry: PipelineEntry, fault: Any, table: Table) -> list[dict[str, Any]]:
    """One pydantic fault in the user's words: field, value, message, allowed.

    Options that contradict each other are one fault of the whole; here each that the complaint
    names gets it.
    """
    properties = properties_of(entry, table)
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
    elif name == "formats" and (makers := _makers(fault["input"], entry.task, table)):
        described["message"] = f"{entry.name} makes none; pipeline={' or '.join(makers)} does"
    return [described]


def _makers(wanted: Any, task: str, table: Table) -> list[str]:
    """The task's pipelines that can be asked for this format."""
    return [
        entry.name for entry in table if entry.task == task and wanted in all_formats(entry, table)
    ]


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
