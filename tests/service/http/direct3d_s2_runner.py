"""The real runner over a table whose Direct3D-S2 is tiny: `python -m … DEVICE EVENT_FD`."""

from __future__ import annotations

import sys
from dataclasses import replace

from service.jobs.runner import Runner
from service.pipelines import PIPELINES

TABLE = tuple(
    replace(entry, loader="tests.models.image_to_mesh.direct3d_s2.released:load")
    if entry.name == "direct3d_s2"
    else entry
    for entry in PIPELINES
)

if __name__ == "__main__":
    Runner(sys.argv[1], int(sys.argv[2]), TABLE).serve()
