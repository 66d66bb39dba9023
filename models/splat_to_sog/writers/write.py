"""`write(splats, path, format, options)`: one way in to every writer.

Does not know the formats: `formats` is their table, and each has a file of its own beside this.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel

from models.context import InvalidInput
from models.splat_to_sog.bundle import write_archive
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.stages import OnStage
from models.splat_to_sog.writers.formats import ARCHIVE, FORMATS, Format, format_of
from models.splat_to_sog.writers.written import Written, new_file


def write(
    splats: Splats,
    path: Path,
    format: str | None = None,
    options: BaseModel | None = None,
    on_stage: OnStage = lambda stage, fraction: None,
) -> Written:
    """Write the scene under `path`; the format follows the name unless it is given.

    Same splats and options, same bytes. The scene is read chunk by chunk: its arrays may be
    larger than memory. Raises InvalidInput where the format has no room for a value that matters;
    what it merely cuts or clamps is counted in `Written.lost`.
    """
    key = format_of(path) if format is None else format
    if key not in FORMATS:
        raise InvalidInput(
            f"format '{key}' is not known; allowed are {', '.join(FORMATS)}.",
            code="splat_type",
            next_step="Choose one of these.",
        )
    if not len(splats):
        raise InvalidInput(
            f"{path.name}: the scene holds 0 splats; at least 1 is needed.",
            code="splat_empty",
            next_step="Check what the filters left over.",
        )
    chosen = FORMATS[key]
    options = chosen.options() if options is None else options
    if not isinstance(options, chosen.options):
        raise TypeError(f"options of '{key}': {type(options)}, expected {chosen.options}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(chosen.suffixes) > 1 and path.suffix.lower() == ARCHIVE:
        with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            meta = Path(folder) / chosen.suffixes[0]
            written = _writer(chosen)(splats, meta, options, on_stage)
            return archived(written, path)
    return _writer(chosen)(splats, path, options, on_stage)


def archived(written: Written, path: Path) -> Written:
    """The files of a format of several as one archive, named as they lie beside the first."""
    folder = written.files[0].parent
    with new_file(path) as out:
        write_archive({file.relative_to(folder).as_posix(): file for file in written.files}, out)
    return Written((path,), written.lost)


def _writer(chosen: Format) -> Callable[..., Written]:
    module, _, function = chosen.writer.partition(":")
    writer: Callable[..., Written] = getattr(import_module(module), function)
    return writer
