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

    def choose(self, ctx: click.Context, args: Sequence[str]) -> PipelineEntry | None:
        """The pipeline named on the command line; None where it is to be the best that can."""
        from service.pipelines import AUTO

        entries = self.entries(ctx)
        wanted = _value_of("--pipeline", args)
        if wanted is None or (wanted == AUTO and len(entries) > 1):
            return entries[0] if len(entries) == 1 else None
        for entry in entries:
            if entry.name == wanted:
                return entry
        names = ", ".join(self.names(ctx))
        raise click.BadParameter(
            f"{wanted!r} is not one of {names}.", ctx, param_hint="'--pipeline'"
        )

    def entries(self, ctx: click.Context) -> list[PipelineEntry]:
        """The task's pipelines."""
        return [entry for entry in table_of(ctx) if entry.task == self.task]

    def names(self, ctx: click.Context) -> list[str]:
        """What --pipeline takes, its default first."""
        from service.pipelines import AUTO

        names = [entry.name for entry in self.entries(ctx)]
        return names if len(names) == 1 else [AUTO, *names]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        from service.pipeline_options import accepted_properties

        entry = ctx.meta.get(ENTRY) or self.choose(ctx, ())
        names = self.names(ctx)
        summary = entry.summary if entry is not None else "auto: the best that can do it here."
        pipeline = click.Option(
            ["--pipeline"], metavar="|".join(names), help=f"{summary}  [default: {names[0]}]"
        )
        entries = [entry] if entry is not None else self.entries(ctx)
        properties = accepted_properties(entries, table_of(ctx))
        own = super().get_params(ctx)
        return [*own[:-1], pipeline, *model_options(properties, self.hidden_options), own[-1]]


def table_of(ctx: click.Context) -> tuple[PipelineEntry, ...]:
    """The pipelines: of the table, or those a caller passed to `run`."""
    from service.pipelines import PIPELINES

    return ctx.find_root().obj or PIPELINES


def model_options(
    properties: Mapping[str, Mapping[str, Any]], hidden: Collection[str] = ()
) -> list[click.Parameter]:
    """One option per field. A field that is not given is absent, so the model's default holds."""
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
