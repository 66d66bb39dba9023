"""A request's options: texts from the query, a form or a header into one validated job request.

Knows the pipeline table, not what the options mean. An option that is given twice with different
values, or is unknown, is refused; nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from service.errors import InvalidOptions
from service.http.problems import shown
from service.jobs.records import Priority
from service.pipelines import PipelineEntry, find_pipeline, validate_options

Texts = Iterable[tuple[str, str]]

PIPELINE = "pipeline"
PRIORITY = "priority"


@dataclass(frozen=True)
class Wanted:
    """What a request asks for: a pipeline, its options with defaults filled in, a priority.

    given: the options the user named, so that an Accept header may choose the others.
    """

    entry: PipelineEntry
    options: Mapping[str, Any]
    priority: Priority
    given: frozenset[str]


def read_wanted(
    task: str, sources: Mapping[str, Texts], table: tuple[PipelineEntry, ...]
) -> Wanted:
    """The job that the sources ("query", "form", ...) ask for together.

    Raises NotFound for an unknown pipeline, InvalidOptions for everything else.
    """
    texts = _merge(sources)
    entry = find_pipeline(task, _only(PIPELINE, texts.pop(PIPELINE, [])), table)
    priority = _priority(_only(PRIORITY, texts.pop(PRIORITY, [])))
    properties = entry.options.model_json_schema()["properties"]
    options = {name: _typed(name, values, properties.get(name)) for name, values in texts.items()}
    return Wanted(entry, validate_options(entry, options), priority, frozenset(options))


def _merge(sources: Mapping[str, Texts]) -> dict[str, list[str]]:
    """Each option's values, from the one source that gives them."""
    merged: dict[str, list[str]] = {}
    came_from: dict[str, str] = {}
    for source, pairs in sources.items():
        here: dict[str, list[str]] = {}
        for name, text in pairs:
            here.setdefault(name, []).append(text)
        for name, texts in here.items():
            if name in merged and merged[name] != texts:
                raise _refusal(
                    name,
                    ",".join(texts),
                    f"the {source} says {shown(','.join(texts))}, "
                    f"the {came_from[name]} says {shown(','.join(merged[name]))}",
                    "one value, given once",
                )
            merged[name], came_from[name] = texts, source
    return merged


def _only(name: str, texts: list[str]) -> str | None:
    """The one value of a scalar option; the same value twice is one value."""
    if len(set(texts)) > 1:
        values = " and ".join(shown(text) for text in texts)
        raise _refusal(name, ",".join(texts), f"given {len(texts)} times: {values}", "one value")
    return texts[0] if texts else None


def _typed(name: str, texts: list[str], schema: Mapping[str, Any] | None) -> Any:
    """Texts as the option's model takes them: lists split at commas, choices by their text.

    Numbers stay text: the model parses them, and its complaints then show what was sent.
    """
    if schema is None:  # unknown; the model refuses it by name
        return ",".join(texts)
    if items := _items(schema):
        parts = [part.strip() for text in texts for part in text.split(",")]
        return [_choice(part, items) for part in parts]
    return _choice((_only(name, texts) or "").strip(), schema)


def _items(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of a list's items; None when the option is not a list."""
    for variant in (schema, *schema.get("anyOf", ())):
        if variant.get("type") == "array":
            found: Mapping[str, Any] = variant.get("items", {})
            return found
    return None


def _choice(text: str, schema: Mapping[str, Any]) -> Any:
    """The choice that is written so (192 for "192"), else the text."""
    return next((value for value in schema.get("enum", ()) if str(value) == text), text)


def _priority(text: str | None) -> Priority:
    if text is None:
        return Priority.NORMAL
    try:
        return Priority(text)
    except ValueError:
        allowed = "one of " + ", ".join(Priority)
        raise _refusal(PRIORITY, text, "is not a priority", allowed) from None


def _refusal(name: str, value: str, message: str, allowed: str) -> InvalidOptions:
    return InvalidOptions(
        f"Option {name}={shown(value)} is not valid: {message}; allowed: {allowed}.",
        next_step="GET /v1/pipelines lists every option with its range and default.",
        details={
            "errors": [
                {"field": name, "value": value[:200], "message": message, "allowed": allowed}
            ]
        },
    )
