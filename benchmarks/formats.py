"""Measures what each format we write keeps of a scene: bytes, errors of attributes, the picture.

Does not judge speed against others (`sog.py` does). Splats are matched row by row where the
format keeps their order, else by likeness.

    python benchmarks/formats.py scene.ply ... [--peer] [--write docs/formats.md]

--peer adds the same formats as splat-transform writes them (needs the packages of tests/browser).
--write puts the tables between the marks in the page.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(1, str(ROOT / "benchmarks"))

from sog import PEER  # noqa: E402

from models.splat_to_sog.bundle import bundle  # noqa: E402
from models.splat_to_sog.encode import encode  # noqa: E402
from models.splat_to_sog.metrics.report import compare  # noqa: E402
from models.splat_to_sog.options import SogOptions  # noqa: E402
from models.splat_to_sog.readers import read  # noqa: E402
from models.splat_to_sog.splats import Splats, drop_non_finite  # noqa: E402
from models.splat_to_sog.writers.curve import curve_order  # noqa: E402
from models.splat_to_sog.writers.formats import SpzOptions  # noqa: E402
from models.splat_to_sog.writers.write import write  # noqa: E402

MARKS = (
    "<!-- measured: begin, written by benchmarks/formats.py -->",
    "<!-- measured: end -->",
)
OURS: dict[str, tuple[str, Any]] = {
    ".ply": ("scene.ply", None),
    ".compressed.ply": ("scene.compressed.ply", None),
    ".spz v3": ("scene.spz", None),
    ".spz v3, 8-bit harmonics": ("eight.spz", SpzOptions(sh_bits="8")),
    ".spz v4": ("four.spz", SpzOptions(version=4)),
    ".sog": ("scene.sog", None),
}
PEERS = {
    ".compressed.ply": ("peer.compressed.ply", ()),
    ".spz v3": ("peer.spz", ("--spz-version", "3")),
    ".spz v4": ("peer4.spz", ("--spz-version", "4")),
}
COLUMNS = {  # of `attribute_errors`: (name, what of it is shown) -> heading
    ("position", "max", "rms"): "position, units",
    ("log_scale", "max", "rms"): "scale, ln",
    ("rotation", "p99_deg", "mean_deg"): "rotation, deg",
    ("opacity", "max", "rms"): "alpha, /255",
    ("colour", "max", "rms"): "colour, /255",
}
SHOWN_SCALE = -12.0  # thinner axes look the same
EQUAL_DB = 120.0  # the metrics end here
VIEWS, SIZE_PX = 8, 512

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--peer", action="store_true", help="splat-transform's writers as well")
    parser.add_argument("--write", type=Path, help="the page whose tables to replace")
    arguments = parser.parse_args()
    text = "\n".join(line for file in arguments.files for line in table(file, arguments.peer))
    if arguments.write:
        before, rest = arguments.write.read_text().split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        arguments.write.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")
    else:
        print(text)


def table(source: Path, with_peer: bool) -> Iterator[str]:
    original = drop_non_finite(read(source, source.name)).splats
    yield f"\n`{source.name}`: {len(original):,} splats, degree {original.degree}.\n"
    yield (
        "| format | by | bytes a splat | "
        + " | ".join(COLUMNS.values())
        + " | harmonics SNR, dB | PSNR, dB | CPU s |"
    )
    yield "|---" * (len(COLUMNS) + 6) + "|"
    with tempfile.TemporaryDirectory() as folder:
        for format, (name, options) in OURS.items():
            if "harmonics" in format and not original.degree:
                continue
            yield line(format, "meshpress", ours(original, Path(folder) / name, options))
        for format, (name, flags) in PEERS.items() if with_peer else ():
            row = theirs(original, source, Path(folder) / name, flags)
            yield line(format, "splat-transform", row)


def ours(original: Splats, path: Path, options: Any) -> Row:
    begin = time.process_time()
    if path.suffix == ".sog":
        coded = encode(original, SogOptions())
        path.write_bytes(bundle(coded.files))
        order = coded.order
    else:
        write(original, path, options=options)
        packed = path.name.endswith(".compressed.ply")
        order = curve_order(original.means) if packed else np.arange(len(original))
    seconds = time.process_time() - begin
    decoded = read(path, path.name)
    row = measured(original.take(order), decoded, path.stat().st_size)
    return row | {"cpu_s": seconds}


def theirs(original: Splats, source: Path, path: Path, flags: tuple[str, ...]) -> Row:
    subprocess.run([*PEER, *flags, str(source), str(path)], check=True)
    decoded = read(path, path.name)
    if path.suffix == ".ply":
        decoded = decoded.take(likeness(original, decoded))
    return measured(original, decoded, path.stat().st_size)


def likeness(original: Splats, decoded: Splats) -> np.ndarray:
    """For each splat of the original the row of `decoded` that it became, as far as can be told."""
    weights = 1 / np.maximum(original.means.std(axis=0), 1e-9)

    def features(splats: Splats) -> np.ndarray:
        scales = np.maximum(splats.scales, SHOWN_SCALE)
        return np.concatenate([100 * weights * splats.means, scales, splats.sh0], axis=1)

    return np.asarray(cKDTree(features(decoded)).query(features(original), workers=2)[1])


def measured(original: Splats, decoded: Splats, size: int) -> Row:
    """Both hold the same splats in the same order."""
    found = compare(original, decoded, views=VIEWS, size_px=SIZE_PX)
    return {
        "attributes": found.attributes,
        "bytes_a_splat": size / len(original),
        "psnr_db": found.psnr_pooled_db,
    }


def line(format: str, by: str, row: Row) -> str:
    """One row of the table."""
    cells = [format, by, f"{row['bytes_a_splat']:.2f}"]
    for name, most, typical in COLUMNS:
        error = row["attributes"][name]
        exact = error[most] == 0
        cells.append("exact" if exact else f"{short(error[most])} ({short(error[typical])})")
    harmonics = row["attributes"].get("harmonics", {}).get("snr_db")
    cells += ["" if db is None else decibels(db) for db in (harmonics, row["psnr_db"])]
    cells.append(f"{row['cpu_s']:.1f}" if "cpu_s" in row else "")
    return f"| {' | '.join(cells)} |"


def short(value: float) -> str:
    """Two digits, without an exponent where that is shorter."""
    return f"{float(f'{value:.2g}'):g}"


def decibels(value: float) -> str:
    return f"{value:.1f}" if value < EQUAL_DB else "exact"


if __name__ == "__main__":
    main()
