"""The real runner over a table whose Direct3D-S2 is tiny: `python -m … DEVICE EVENT_FD`.

Its steps take a moment, as real ones do: a client has the time to cancel between two.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from models.context import Pipeline
from service.jobs.runner import Runner
from service.pipelines import PIPELINES

STEP_SECONDS = 0.05


def load(device: str) -> Pipeline:
    from tests.models.image_to_mesh.direct3d_s2 import released  # here: it imports torch

    pipeline = released.load(device)
    networks = pipeline.generator.networks
    for flow in (networks.dense_flow, networks.sparse_flow_512, networks.sparse_flow_1024):
        flow.register_forward_pre_hook(lambda *_: time.sleep(STEP_SECONDS))
    return pipeline


TABLE = tuple(
    replace(entry, loader="tests.service.http.direct3d_s2_runner:load")
    if entry.name == "direct3d_s2"
    else entry
    for entry in PIPELINES
)

if __name__ == "__main__":
    Runner(sys.argv[1], int(sys.argv[2]), TABLE).serve()
