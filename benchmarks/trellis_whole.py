"""TRELLIS from a picture to a GLB at full size: the pipeline that the service runs, on a device.

`python benchmarks/trellis_whole.py PICTURE --state-dicts DIR --mesh FILE.npz -o OUT.glb`. Weights
are random, saved under the official names and loaded as a release is (`random_release`); the voxels
of a mesh's surface take the place of those the structure decoder finds, since such weights know no
shape. What comes out has the size of a real result, not its looks: check it with gltf-validator.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from random_release import write_release
from torch import Tensor
from trellis_gpu import voxels_of

from models.context import InputFile, InvalidInput, LocalContext
from models.image_to_mesh.options import TrellisOptions
from models.image_to_mesh.trellis.checkpoint import load_generator
from models.image_to_mesh.trellis.generator import Generator
from models.image_to_mesh.trellis.pipeline import TrellisPipeline
from models.image_to_mesh.trellis.release import read_release
from models.nn.precision import chosen_dtype
from models.nn.residency import Residency


@dataclass(frozen=True)
class Given(Generator):
    """Finds a structure like any other, and goes on with the one it was given."""

    voxels: Tensor | None = None  # int32 [N, 4]

    def structure(self, *arguments: object, **named: object) -> Tensor:
        try:
            super().structure(*arguments, **named)
        except InvalidInput as error:  # a random decoder may leave every voxel empty, work done
            if error.code != "structure_empty":
                raise
        return self.voxels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--state-dicts", type=Path, required=True)
    parser.add_argument("--mesh", type=Path, required=True, help="npz with vertices V and faces F")
    parser.add_argument("--release", type=Path, help="where the random release is, or goes")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--repeats", type=int, default=2, help="the first compiles kernels")
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(options, Path(folder))


def run(options: argparse.Namespace, folder: Path) -> None:
    path = options.release or folder / "release"
    if not path.exists():
        write_release(path, options.state_dicts)
    release, place = read_release(path), torch.device(options.device)
    loaded = load_generator(release, path / "dinov2", Residency(place), chosen_dtype(place))
    generator = Given(**vars(loaded), voxels=voxels_of(options.mesh).to(place))
    pipeline = TrellisPipeline(generator, release)
    for _ in range(options.repeats):
        result = pipeline(
            LocalContext(folder, device=str(place)),
            [InputFile(options.picture, options.picture.name)],
            TrellisOptions(),
        )
        print(json.dumps({"seconds": result.report["seconds"], "mesh": result.report["mesh"]}))
    shutil.copy(result.artifacts[0].path, options.out)


if __name__ == "__main__":
    main()
