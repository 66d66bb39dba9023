"""Measure images -> mesh: shape against ground truth, and time, size and soundness of whole runs.

    python benchmarks/mesh.py [--data ../shared] [--out folder]

Knows nothing of the pipeline's insides. The shape figures come from the evaluation set's own
`evaluate.py`, run on the geometry stage with simplification, as exported; no setting was chosen on
that set.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ("raw_f0.05", "f0.05", "cd", "viou", "sil_in", "sil_nv", "watertight", "wall_s")
SEVERAL = {
    "mushroom, declared": ("mushroom", {"azimuth": (50, 180, 310)}),
    "rabbit, declared": ("rabbit", {"azimuth": (90, 0, 270)}),
    "rabbit, guessed": ("rabbit", {}),
}


def shapes(data: Path, faces: int) -> dict[str, Any]:
    """Means over the evaluation set, and watertightness of each object's exported GLB."""
    import numpy as np

    from models.image_to_mesh.finishing.simplify import simplify
    from models.image_to_mesh.geometry.medial_balls import reconstruct

    sys.path.insert(0, str(data / "meshes"))
    evaluate = importlib.import_module("evaluate")
    objects = evaluate.objects()
    rows = evaluate.run(lambda rgba: simplify(*reconstruct(rgba), faces), objects)
    for row in rows:
        print("  " + row["name"].ljust(30), *(f"{k} {row[k]:.3f}" for k in FIGURES[:5]))
    closed = 0
    for item in objects:
        picture = np.round(evaluate.load(item)[3] * 255).astype(np.uint8)
        closed += bool(_run_pixels(picture, item["name"])["mesh"]["watertight"])
    summary = evaluate.summary(rows)
    return {
        "objects": len(rows),
        **{k: round(summary[k], 4) for k in FIGURES},
        "watertight_after_export": f"{closed} of {len(rows)}",
    }


def _run_pixels(picture: Any, name: str) -> Any:
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "view.png"
        Image.fromarray(picture).save(path)
        return whole_run([path], name, None)[1]


def whole_run(
    paths: list[Path], name: str, out: Path | None, **options: Any
) -> tuple[float, Any, Any]:
    """Wall seconds of one run in this process, its report, its GLB's path."""
    from models.context import InputFile, LocalContext
    from models.image_to_mesh.options import EmbeddedOptions
    from models.image_to_mesh.pipeline import load

    folder = (out or Path(tempfile.mkdtemp())) / name.replace(", ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    files = [InputFile(path, path.name) for path in paths]
    begin = time.perf_counter()
    result = load("cpu")(LocalContext(folder), files, EmbeddedOptions(**options))
    return time.perf_counter() - begin, result.report, result.artifacts[0].path


def images(data: Path, out: Path | None) -> list[dict[str, Any]]:
    """Every example image three times: the best is the warm figure."""
    work = [(p.stem, [p], {}) for p in sorted((data / "images/single").glob("*.png"))]
    for title, (name, options) in SEVERAL.items():
        work.append((title, sorted((data / "images/multi").glob(f"{name}_*.png")), options))
    rows = []
    for title, paths, options in work:
        runs = [whole_run(paths, title, out, **options) for _ in range(3)]
        seconds, report, glb = min(runs, key=lambda run: run[0])
        rows.append(
            {
                "input": title,
                "wall_s": round(seconds, 2),
                "first_s": round(runs[0][0], 2),
                "faces": report["mesh"]["faces"],
                "watertight": report["mesh"]["watertight"],
                "kb": round(glb.stat().st_size / 1000),
                "method": report["method"],
                "seconds": report["seconds"],
            }
        )
        print("  " + json.dumps(rows[-1]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, help="keep the GLB files here")
    parser.add_argument("--faces", type=int, default=20_000)
    parser.add_argument("--only", choices=("shapes", "images"))
    arguments = parser.parse_args()
    begin = time.perf_counter()
    importlib.import_module("models.image_to_mesh.pipeline")
    print(f"import: {time.perf_counter() - begin:.2f} s")
    if arguments.only != "shapes":
        print("images:")
        images(arguments.data, arguments.out)
    if arguments.only != "images":
        print("shapes:")
        print("  mean", json.dumps(shapes(arguments.data, arguments.faces)))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
