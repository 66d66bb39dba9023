"""`meshpress mesh` and `meshpress sog`: files in, files out, a report on request.

Knows how arguments become work and how its outcome is told; the work itself is `work`'s.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.context import Artifact, InputFile, PipelineError
from service.cli.address import ServiceAddress
from service.cli.files import pack, place_copy
from service.cli.options import ENTRY, PipelineCommand, given, table_of
from service.cli.progress import show_progress
from service.cli.refused import Refused
from service.cli.targets import OPEN_WITH, Target, parse_target
from service.cli.work import Done, Work, run_here, run_there

if TYPE_CHECKING:
    from service.pipelines import PipelineEntry

PREVIEW = "preview.webp"
UNITS = {  # of the report's errors, by attribute
    "position": "scene units",
    "log_scale": "(natural log)",
    "opacity": "of 255",
    "colour": "of 255",
    "covariance": "of its norm",
}
ENDINGS = {"_of_radius": " of the scene's radius", "_deg": " deg", "_db": " dB"}
SOURCE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
SCENE = click.Path(exists=True, allow_dash=True, path_type=Path)  # or the folder of a SOG


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """The options both verbs have, in the order their help shows them."""
    for decorate in (
        click.option("--quiet", "-q", is_flag=True, help="No progress, no hints."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
        click.option("--device", default="cpu", show_default=True, help="Where to run it."),
        click.option(
            "--server", type=ServiceAddress(), metavar="URL", help="Let a service do the work."
        ),
        click.option("--overwrite", "-w", is_flag=True, help="Replace files that exist."),
        click.pass_context,
    ):
        command = decorate(command)
    return command


@click.command(
    "mesh",
    cls=PipelineCommand,
    task="mesh",
    hidden_options=["formats"],  # the endings of the outputs say it
    short_help="Image(s) of one object to a textured mesh, or to splats.",
)
@click.argument("images", nargs=-1, required=True, type=SOURCE, metavar="IMAGE...")
@click.option(
    "--output", "-o", "outputs", multiple=True, metavar="FILE",
    help="Where to write; the ending sets the format. Repeat it for several formats. "
    "`-` is stdout.  [default: the first image's name with .glb, in this folder]",
)  # fmt: skip
@_common
def mesh(
    ctx: click.Context, images: tuple[Path, ...], outputs: tuple[str, ...], **rest: Any
) -> None:
    """Image(s) of one object to a textured mesh: .glb, .obj, .ply or .stl.

    A pipeline that makes Gaussians writes .splat.ply too, and .sog, .spz, .compressed.ply,
    .loose.zip or .lod.zip with the options of `meshpress sog`. Without --pipeline it is the best
    that can do it on the device; the report says which, and why.

    \b
    meshpress mesh chair.png -o chair.glb
    meshpress mesh chair.png --pipeline trellis --device cuda:0 -o chair.glb -o chair.sog
    meshpress mesh front.png left.png back.png --azimuth 0 --azimuth 90 --azimuth 180
    cat chair.png | meshpress mesh - -o - > chair.glb
    """
    stem = "-" if images[0] == Path("-") else f"{images[0].stem}.glb"
    _convert(ctx, images, outputs or (stem,), **rest)


@click.command(
    "sog",
    cls=PipelineCommand,
    task="splat",
    hidden_options=["formats", "report"],
    short_help="A Gaussian splat to a SOG bundle, or from any splat format to another.",
)
@click.argument("source", type=SCENE, metavar="IN")
@click.argument("output", required=False, metavar="[OUT]")
@click.option(
    "--merge", multiple=True, type=SCENE, metavar="FILE",
    help="Another splat that becomes part of the scene. Repeat it for several.",
)  # fmt: skip
@click.option("--report", is_flag=True, help="Render scene and result; tell what coding cost.")
@click.option(
    "--preview", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="With the report: a WebP of scene, result and ten times their difference.",
)  # fmt: skip
@_common
def sog(
    ctx: click.Context,
    source: Path,
    output: str | None,
    merge: tuple[Path, ...],
    report: bool,
    preview: Path | None,
    **rest: Any,
) -> None:
    """A Gaussian splat to a SOG bundle, or from any splat format to another.

    IN is a .ply, .compressed.ply, .splat, .ksplat, .spz, .sog, the meta.json of a loose SOG, the
    lod-meta.json of a streamed one, or the folder or ZIP of either. OUT's ending says what to
    write: .sog, .ply, .compressed.ply, .spz, meta.json (loose SOG) or .loose.zip, lod-meta.json
    (streamed SOG with levels of detail) or .lod.zip. It is IN's name with .sog, in this folder,
    unless named; `-` is stdin or stdout.

    \b
    meshpress sog garden.ply garden.sog
    meshpress sog garden.ply garden.sog --preset small --min-opacity 0.01
    meshpress sog house.ply all.sog --merge garden.ply
    cat garden.spz | meshpress sog - - > garden.sog
    """
    whole = source.resolve().name if source.is_dir() else source.name
    name = whole.removesuffix(Path(whole).suffix).removesuffix(".compressed")
    output = output or ("-" if source == Path("-") else f"{name}.sog")
    if preview is not None:
        if preview.resolve() == Path(output).resolve():
            raise Refused(f"--preview and OUT are the same file, {output}.")
        Target(preview, "webp").check(rest["overwrite"])
    wanted = report or preview is not None
    done = _convert(ctx, (source, *merge), (output,), report=wanted, preview=preview, **rest)
    quality = done.report.get("quality")
    if quality and not rest["as_json"]:
        _tell_quality(quality, done.report)


def _convert(
    ctx: click.Context,
    sources: Sequence[Path],
    outputs: Sequence[str],
    *,
    overwrite: bool,
    server: str | None,
    device: str,
    as_json: bool,
    quiet: bool,
    pipeline: str | None,
    preview: Path | None = None,
    **options: Any,
) -> Done:
    entry: PipelineEntry | None = ctx.meta[ENTRY]
    table = table_of(ctx)
    task = ctx.command.task  # type: ignore[attr-defined]  # of a PipelineCommand
    entries = [item for item in table if item.task == task] if entry is None else [entry]
    targets = _targets(entries, table, outputs, overwrite)
    if as_json and any(target.path is None for target in targets):
        raise Refused("--json and a result on stdout exclude each other.")
    values = given(options)
    if any("formats" in item.options.model_fields for item in entries):
        values["formats"] = [target.format for target in targets]
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="meshpress-") as scratch:
            inputs = _inputs(entries, sources, Path(scratch), packed=bool(server))
            work = Work(task, entry, inputs, values, device, table)
            folder = Path(scratch) / "work"
            folder.mkdir()
            with show_progress(ctx.info_name or task, quiet) as on_progress:
                if server:
                    done = run_there(work, server, folder, on_progress)
                else:
                    done = run_here(work, folder, on_progress)
            written = [target.write(_artifact(done, target)) for target in targets]
            if preview is not None:
                place_copy(_named(done, PREVIEW).path, preview)
                written.append([preview])
    except Exception as error:
        if as_json:
            click.echo(json.dumps({"error": _fault(error)}))
        raise
    seconds = time.monotonic() - started
    if as_json:
        click.echo(json.dumps(_facts(done, written, seconds), indent=2))
    else:
        _tell(done, targets, written[: len(targets)], seconds, quiet)
    return done


def _targets(
    entries: Sequence[PipelineEntry],
    table: tuple[PipelineEntry, ...],
    outputs: Sequence[str],
    overwrite: bool,
) -> list[Target]:
    from service.pipelines import all_formats

    formats = list(dict.fromkeys(name for entry in entries for name in all_formats(entry, table)))
    targets = [parse_target(text, formats, formats[0]) for text in outputs]
    if len({target.format for target in targets}) < len(targets):
        raise Refused("Two outputs have the same format; name each format once.")
    for target in targets:
        target.check(overwrite)
    return targets


def _inputs(
    entries: Sequence[PipelineEntry], sources: Sequence[Path], scratch: Path, packed: bool
) -> list[InputFile]:
    """The files as the pipeline takes them; stdin is first written to the scratch folder.

    packed: a scene of several files becomes one ZIP, which a service takes.
    """
    fewest, most = min(entry.inputs[0] for entry in entries), max(e.inputs[1] for e in entries)
    if not fewest <= len(sources) <= most:
        names = " or ".join(entry.name for entry in entries)
        raise Refused(f"{len(sources)} files given; pipeline {names} takes {fewest} to {most}.")
    if list(sources).count(Path("-")) > 1:
        raise Refused("`-` reads stdin and may stand only once.")
    inputs: list[InputFile] = []
    for source in sources:
        if source == Path("-"):
            source = scratch / "stdin"
            with source.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
            if not source.stat().st_size:
                raise Refused("`-` reads stdin, which was empty.")
        elif packed and (source.is_dir() or source.suffix.lower() == ".json"):
            source = _packed(source, scratch / f"packed_{len(inputs)}")
        inputs.append(InputFile(source, source.name))
    return inputs


def _packed(source: Path, folder: Path) -> Path:
    """A loose or streamed SOG as one ZIP in `folder`, named as what the user gave."""
    from models.splat_to_sog.readers.described import files_of  # loads arrays: only where needed

    folder.mkdir()
    archive = folder / f"{source.resolve().name}.zip"
    pack(files_of(source), archive)
    return archive


def _artifact(done: Done, target: Target) -> Artifact:
    """The result of the target's format."""
    for artifact in done.artifacts:
        if artifact.name.split(".")[1] == target.format:
            return artifact
    names = ", ".join(artifact.name for artifact in done.artifacts) or "nothing"
    raise PipelineError(f"The pipeline gave no {target.format}, only {names}.")


def _named(done: Done, name: str) -> Artifact:
    for artifact in done.artifacts:
        if artifact.name == name:
            return artifact
    raise PipelineError(f"The pipeline gave no {name}.")


def _tell_quality(quality: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """What coding cost, on stderr: the pictures, then the values."""
    lines = [
        f"PSNR {quality['psnr_db']:.2f} dB (worst view {quality['psnr_min_db']:.2f}), "
        f"SSIM {quality['ssim']:.5f}, {len(quality['views'])} views of {quality['size_px']} px",
        f"{report['bytes_in']:,} -> {report['bytes_out']:,} bytes "
        f"({report['bytes_in'] / max(1, report['bytes_out']):.1f}x smaller)",
    ]
    lines += [
        f"{name}: " + ", ".join(_with_unit(name, key, fact) for key, fact in facts.items())
        for name, facts in quality.get("attributes", {}).items()
    ]
    for line in lines:
        click.echo(line, err=True)


def _with_unit(attribute: str, key: str, fact: object) -> str:
    """`rms 0.55 of 255`; a key that ends in a unit has it behind the figure."""
    for ending, unit in ENDINGS.items():
        if key.endswith(ending):
            return f"{key.removesuffix(ending)} {fact}{unit}"
    return f"{key} {fact} {UNITS.get(attribute, '')}".rstrip()


def _facts(done: Done, written: Sequence[Sequence[Path]], seconds: float) -> dict[str, Any]:
    """The object `--json` prints."""
    files = [path for paths in written for path in paths]
    return {
        "outputs": [{"path": str(path), "size_bytes": path.stat().st_size} for path in files],
        "pipeline": done.pipeline,
        "job": done.job,
        "seconds": round(seconds, 3),
        "report": dict(done.report),
    }


def _fault(error: Exception) -> dict[str, str]:
    return {
        "code": str(getattr(error, "code", type(error).__name__)),
        "message": str(getattr(error, "message", error)),
        "next_step": str(getattr(error, "next_step", "")),
    }


def _tell(
    done: Done,
    targets: Sequence[Target],
    written: Sequence[Sequence[Path]],
    seconds: float,
    quiet: bool,
) -> None:
    """The paths on stdout; warnings, and on a terminal what to open them with, on stderr."""
    for warning in done.report.get("warnings", ()):
        click.echo(f"Warning: {warning}", err=True)
    if (choice := done.report.get("choice")) and not quiet:
        click.echo(f"Pipeline {choice['pipeline']}: {choice['reason']}", err=True)
        for name, reason in choice["passed_over"].items():
            click.echo(f"  {name}: {reason}", err=True)
    for target, paths in zip(targets, written, strict=True):
        if not paths:
            continue
        click.echo(str(paths[0]))
        if sys.stderr.isatty() and not quiet:
            size = sum(path.stat().st_size for path in paths) / 1e6
            click.echo(
                f"  {size:.1f} MB in {seconds:.1f} s. Open it with {OPEN_WITH[target.format]}.",
                err=True,
            )
