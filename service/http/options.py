"""A request's options: texts from the query, a form or a header into one validated job request.

Knows the pipeline table, not what the options mean. An option that is given twice with different
values, or is unknown, is refused; nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from service.choice import Asked, Device, choose
from service.errors import InvalidOptions
from service.http.problems import shown
from service.jobs.records import Priority
from service.pipeline_options import accepted_properties, properties_of, validate_options
from service.pipelines import AUTO, PipelineEntry, all_formats, find_pipeline

Texts = Iterable[tuple[str, str]]

PIPELINE = "pipeline"
PRIORITY = "priority"


@dataclass(frozen=True)
class Wanted:
    """What a request asks for: a pipeline, its options with defaults filled in, a priority.

    given:   the options the user named, as they were read, so that an Accept header may choose the
             others
    formats: what may be asked for in `formats`, the default first
    choice:  why this pipeline, where the request left it to us
    """

    entry: PipelineEntry
    options: Mapping[str, Any]
    priority: Priority
    given: Mapping[str, Any]
    formats: tuple[str, ...]
    choice: Mapping[str, Any] | None = None


def read_wanted(
    task: str,
    sources: Mapping[str, Texts],
    table: tuple[PipelineEntry, ...],
    files: int,
    device_of: Callable[[], Device],
) -> Wanted:
    """The job that the sources ("query", "form", ...) ask for together.

    files:     how many the request brings
    device_of: what jobs run on; asked where the pipeline is ours to choose

    Raises NotFound for an unknown pipeline, PipelineUnavailable where none that could do it can run
    here, InvalidOptions for everything else.
    """
    texts = _merge(sources)
    name = _only(PIPELINE, texts.pop(PIPELINE, []))
    priority = _priority(_only(PRIORITY, texts.pop(PRIORITY, [])))
    choice = None
    if name is None or name == AUTO:
        entries = [entry for entry in table if entry.task == task]
        asked = _read(texts, accepted_properties(entries, table)).get("formats", ())
        wish = Asked(files, frozenset(texts), tuple(asked))
        choice = choose(task, table, wish, device_of())
        entry = choice.entry
    else:
        entry = find_pipeline(task, name, table)
    given = _read(texts, properties_of(entry, table))
    return Wanted(
        entry,
        validate_options(entry, given, table),
        priority,
        given,
        all_formats(entry, table),
        choice.to_json() if choice is not None and _is_ours(task, table) else None,
    )


def _read(
    texts: Mapping[str, list[str]], properties: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    return {name: _typed(name, values, properties.get(name)) for name, values in texts.items()}


def _is_ours(task: str, table: tuple[PipelineEntry, ...]) -> bool:
    """Whether there was anything to choose from."""
    return sum(entry.task == task for entry in table) > 1


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
