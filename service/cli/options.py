"""A pipeline's options model as command-line options: name, type, range, default, help.

Knows pydantic's JSON schema, not what an option does. The models that HTTP validates with are the
only source, so the command line cannot drift from the service.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from service.settings import PREFIX

if TYPE_CHECKING:
    from pydantic import BaseModel

    from service.pipelines import PipelineEntry

NOUNS = {"integer": "INTEGER", "number": "NUMBER"}
ENTRY = f"{PREFIX.lower()}entry"


class OneOf(click.ParamType):  # type: ignore[type-arg] # generic only in newer clicks
    """One of a schema's literal values, which need not be texts: `192` gives the number."""

    name = "choice"

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = {str(value): value for value in values}

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(self.values)}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value) not in self.values:
            self.fail(f"{value!r} is not one of {', '.join(self.values)}.", param, ctx)
        return self.values[str(value)]


class PipelineCommand(click.Command):
    """A command that also takes the options of the pipeline chosen with `--pipeline`."""

    def __init__(self, *, task: str, hidden_options: Collection[str] = (), **options: Any) -> None:
        super().__init__(**options)
        self.task = task
        self.hidden_options = frozenset(hidden_options)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ENTRY] = self.choose(ctx, args)
        return super().parse_args(ctx, args)

    def choose(self, ctx: click.Context, args: Sequence[str]) -> PipelineEntry:
        """The pipeline named on the command line, or the task's default."""
        from service.pipelines import DEFAULT_PIPELINE

        entries = self.entries(ctx)
        wanted = _value_of("--pipeline", args)
        if wanted is None:
            wanted = DEFAULT_PIPELINE.get(self.task)
            return next((entry for entry in entries if entry.name == wanted), entries[0])
        for entry in entries:
            if entry.name == wanted:
                return entry
        names = ", ".join(entry.name for entry in entries)
        raise click.BadParameter(
            f"{wanted!r} is not one of {names}.", ctx, param_hint="'--pipeline'"
        )

    def entries(self, ctx: click.Context) -> list[PipelineEntry]:
        """The task's pipelines: of the table, or of the one a caller passed to `run`."""
        from service.pipelines import PIPELINES

        table: Sequence[PipelineEntry] = ctx.find_root().obj or PIPELINES
        return [entry for entry in table if entry.task == self.task]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        entry = ctx.meta.get(ENTRY) or self.choose(ctx, ())
        names = click.Option(
            ["--pipeline"],
            metavar="|".join(other.name for other in self.entries(ctx)),
            help=f"{entry.summary}  [default: {entry.name}]",
        )
        own = super().get_params(ctx)
        return [*own[:-1], names, *model_options(entry.options, self.hidden_options), own[-1]]


def model_options(model: type[BaseModel], hidden: Collection[str] = ()) -> list[click.Parameter]:
    """One option per field. A field that is not given is absent, so the model's default holds."""
    properties: Mapping[str, Any] = model.model_json_schema()["properties"]
    return [_option(name, schema) for name, schema in properties.items() if name not in hidden]


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that stood on the command line."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if value is not None and value != ()
    }


def _option(name: str, schema: Mapping[str, Any]) -> click.Option:
    flag = "--" + name.replace("_", "-")
    core = _without_null(schema)
    array = core.get("type") == "array"
    length = core.get("minItems") if core.get("minItems") == core.get("maxItems") else None
    multiple = array and not length
    text = schema.get("description", "")
    if multiple:
        text += " Repeat it for several."
    default = schema.get("default")
    if default is not None:
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        text += f"  [default: {shown}]"
    if core.get("type") == "boolean":
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=None, help=text)
    item = core.get("items") or core.get("prefixItems", [{}])[0] if array else core
    kind = _type(item)
    metavar = None if isinstance(kind, OneOf) else NOUNS.get(item.get("type", ""), "TEXT")
    if length:  # a fixed number of values stands behind one flag: --translate 0 1 0
        metavar = " ".join([metavar or "VALUE"] * length)
        return click.Option([flag], type=kind, nargs=length, metavar=metavar, help=text)
    return click.Option([flag], type=kind, multiple=multiple, metavar=metavar, help=text)


def _type(schema: Mapping[str, Any]) -> click.ParamType:  # type: ignore[type-arg]
    schema = _without_null(schema)
    if "enum" in schema:
        return OneOf(schema["enum"])
    if "const" in schema:
        return OneOf([schema["const"]])
    if schema.get("type") == "integer":
        return _ranged(click.IntRange, schema) or click.INT
    if schema.get("type") == "number":
        return _ranged(click.FloatRange, schema) or click.FLOAT
    return click.STRING


def _ranged(
    kind: type[click.IntRange | click.FloatRange], schema: Mapping[str, Any]
) -> click.ParamType | None:  # type: ignore[type-arg]
    """The range of a schema; None when it has no limits."""
    low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    limits = schema.get("minimum", low), schema.get("maximum", high)
    if limits == (None, None):
        return None
    return kind(*limits, min_open=low is not None, max_open=high is not None)


def _without_null(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """`X | None` as X: on a command line "not given" is None."""
    for part in schema.get("anyOf", ()):
        if part.get("type") != "null":
            return dict(part)
    return schema


def _value_of(flag: str, args: Sequence[str]) -> str | None:
    for index, word in enumerate(args):
        if word == "--":
            break
        if word == flag and index + 1 < len(args):
            return args[index + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None
