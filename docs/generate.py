"""Write the reference pages that must not drift: settings.md, cli.md and errors.md.

    python docs/generate.py            write them
    python docs/generate.py --check    exit 1 and name the pages that differ

Everything comes from the code: the settings table, the command line's own objects, the exception
tree and the codes that pipelines raise. A test runs the check.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

HEADER = (
    "<!-- Written by `python docs/generate.py`; change the code it is derived from instead. -->"
)


def settings_page() -> str:
    from service.settings import PREFIX, Settings

    lines = [
        "# Settings",
        "",
        HEADER,
        "",
        f"Each is read from the environment as `{PREFIX}<NAME>`; `meshpress serve` takes the same "
        "names as options, which win.",
        "A variable with that prefix that names no setting, and a value that is not allowed, end "
        "the command with exit code 2.",
        "",
        "| variable | default | unit | allowed | meaning |",
        "|---|---|---|---|---|",
    ]
    for item in fields(Settings):
        default = f"`{item.default}`" if item.default != "" else ""
        cells = (
            f"`{PREFIX}{item.name.upper()}`",
            default,
            item.metadata["unit"],
            allowed(item.metadata["parse"]),
            item.metadata["help"],
        )
        lines.append(row(*cells))
    return page(lines)


def allowed(parse: Any) -> str:
    """What a setting accepts, in the words of its own refusal."""
    from service.settings import SettingError

    try:
        parse("\0")
    except SettingError as error:
        return str(error)
    return "a path" if "path" in parse.__name__ else "text"


def cli_page() -> str:
    from service.cli.root import cli

    lines = [
        "# Command line",
        "",
        HEADER,
        "",
        "Results go to stdout, everything else to stderr. Exit codes: 0 done; 1 the job failed, or "
        "the service did; 2 the command line or a setting is wrong; 130 stopped by Ctrl-C.",
        "`meshpress doctor` has its own: 0 fine, 1 warnings, 2 cannot serve.",
        "With `--debug` anywhere on the line, an error shows its traceback.",
    ]
    for name, command in commands(cli, "meshpress"):
        context = click.Context(command, info_name=name)
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        lines += ["", f"## {name}", "", f"`{usage}`", *prose(command.help or "")]
        options = [item for item in command.get_params(context) if isinstance(item, click.Option)]
        lines += ["", "| option | meaning |", "|---|---|"]
        for option in options:
            names, text = option.get_help_record(context) or ("", "")
            lines.append(row(f"`{names}`", " ".join(text.split())))
    return page(lines)


def prose(text: str) -> Iterator[str]:
    """A docstring's paragraphs; those click keeps as they are (\\b) become code blocks."""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b\n"):
            yield from ("", "```", *paragraph.split("\n")[1:], "```")
        else:
            yield from ("", *paragraph.split("\n"))


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    if command.invoke_without_command:
        yield name, command
    for word in sorted(command.commands):
        yield from commands(command.commands[word], f"{name} {word}")


def errors_page() -> str:
    from service.errors import MeshpressError

    lines = [
        "# Errors",
        "",
        HEADER,
        "",
        "Over HTTP an error is `application/problem+json` with `code`, `detail` and `next_step`; a "
        "failed job carries the same in `error`; the command line prints them as one line.",
        "Codes are stable: programs may rely on them.",
        "",
        "## Kinds",
        "",
        "| code | HTTP status | title | kind of |",
        "|---|---|---|---|",
    ]
    lines += [
        row(f"`{kind.code}`", str(kind.status), kind.title, parent)
        for kind, parent in tree(MeshpressError)
    ]
    lines += [
        "",
        "## Failed jobs",
        "",
        "A job that fails says in `error.fault` where the cause lies. Behind one request for a "
        "file (`/v1/mesh`, `/v1/splat`, `/invocations`) that decides the status; code, detail and "
        "next step are the job's own.",
        "",
        "| fault | HTTP status | the cause |",
        "|---|---|---|",
    ]
    lines += [row(f"`{fault}`", str(kind.status), cause) for fault, kind, cause in failures()]
    for title, folder in (("the service", "service"), ("pipelines", "models")):
        lines += ["", f"## Codes of {title}", "", "| code | messages |", "|---|---|"]
        messages: dict[str, set[str]] = {}
        for code, message in raised_codes(ROOT / folder):
            messages.setdefault(code, set()).add(message)
        for code in sorted(messages):
            lines.append(row(f"`{code}`", "<br>".join(sorted(messages[code] - {"…", ""}))))
    return page(lines)


def failures() -> Iterator[tuple[str, Any, str]]:
    """(fault, kind of the error, the comment beside the fault) of every fault a job can have."""
    from service.http.oneshot import FAILURES
    from service.jobs import records

    for line in Path(records.__file__).read_text(encoding="utf-8").splitlines():
        name, equals, rest = line.strip().partition(" = ")
        if equals and name in records.Fault.__members__:
            fault = records.Fault[name]
            yield fault, FAILURES[fault], rest.partition("# ")[2]


def tree(kind: Any) -> Iterator[tuple[Any, str]]:
    parent = kind.__mro__[1]
    yield kind, f"`{parent.code}`" if hasattr(parent, "code") else ""
    for below in kind.__subclasses__():
        yield from tree(below)


def raised_codes(folder: Path) -> Iterator[tuple[str, str]]:
    """(code, message) of every `Kind(message, code="…")` in the source."""
    for path in sorted(folder.rglob("*.py")):
        if "client" in path.relative_to(ROOT).parts:
            continue  # what the client adds is drawn in its own module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            for keyword in node.keywords:
                if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                    yield str(keyword.value.value), max(map(words, node.args), key=len)


def words(node: ast.expr) -> str:
    """A message's template: literal text, with … for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            words(part) if isinstance(part, ast.Constant) else "…" for part in node.values
        )
    return "…"


def row(*cells: str) -> str:
    """A table's row is one line, whatever its cells hold."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def page(lines: list[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


PAGES = {"settings.md": settings_page, "cli.md": cli_page, "errors.md": errors_page}


def main() -> int:
    differing = []
    for name, build in PAGES.items():
        path, text = DOCS / name, build()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            differing.append(name)
            if "--check" not in sys.argv[1:]:
                path.write_text(text, encoding="utf-8")
    if "--check" in sys.argv[1:] and differing:
        sys.stderr.write(f"{', '.join(differing)} differ; run: python docs/generate.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
