"""Time schedules and flow sampling against files of the reference samplers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.image_to_mesh.trellis.slat_flow import SlatFlow
from models.image_to_mesh.trellis.ss_flow import SparseStructureFlow
from models.nn.guidance import Guidance
from models.nn.samplers import Step, rescaled_times, sample, shifted_times
from models.nn.sparse_tensor import SparseTensor
from models.nn.velocity import DenseVelocity, SparseVelocity
from tests.models.parity import Golden, agree, file

SCHEDULES = ["1.0_12", "1.0_25", "3.0_12", "3.0_25", "5.0_12", "5.0_25"]


@pytest.mark.parametrize("name", [pytest.param(s, id=f"t_seq_{s}") for s in SCHEDULES])
def test_rescaled_times(shared: Callable[[str], Path], name: str) -> None:
    """To the last bit: whether a step lies in the guidance interval may hang on it."""
    expected = json.loads(shared("data/parity/index.json").read_text())[f"t_seq_{name}"]["t_seq"]
    rescale_t, steps = name.split("_")
    assert rescaled_times(int(steps), float(rescale_t)) == expected


@pytest.mark.parametrize("name", ["d3ds2_fm_euler_shift6_n50", "d3ds2_fm_euler_shift8_n15"])
def test_shifted_times(shared: Callable[[str], Path], name: str) -> None:
    golden = Golden(shared(f"data/parity/{name}.safetensors"))
    config = golden.config
    times = torch.tensor(shifted_times(config["steps"], config["shift"]))
    agree(times, golden["out/sigmas"])
    agree(1000 * times[:-1], golden["out/timesteps"])


@pytest.mark.parametrize("batched", [False, True], ids=["two_passes", "one_batch"])
@file("trellis_sampler_interval_a")
def test_dense_sampling(golden: Golden, batched: bool) -> None:
    config = golden.config
    model = golden.beside(config["model"])
    shape = {k: v for k, v in model.config.items() if k != "pe_mode"}
    flow = model.load(SparseStructureFlow(**shape))

    steps: list[Step] = []
    out = sample(
        DenseVelocity(flow, batched=batched),
        golden["in/noise"],
        [golden["in/cond"]],
        times=rescaled_times(config["steps"], config["rescale_t"]),
        negative=torch.zeros_like(golden["in/cond"]),
        guidance=Guidance.added(config["cfg_strength"], tuple(config["cfg_interval"])),
        on_step=steps.append,
    )
    agree(out, golden["out/samples"])
    agree(torch.stack([step.x_next for step in steps]), golden["out/traj"])
    agree(steps[-1].x0, golden["out/pred_x_0_last"])


@pytest.mark.parametrize("batched", [False, True], ids=["two_passes", "one_batch"])
@file("trellis_slat_sampler")
def test_sparse_sampling(golden: Golden, batched: bool) -> None:
    config = golden.config
    model = golden.beside(config["model"])
    shape = {k: v for k, v in model.config.items() if k not in ("pe_mode", "patch_size")}
    flow = model.load(SlatFlow(**shape))

    noise = SparseTensor(golden["in/noise"], golden["in/coords"])
    out = sample(
        SparseVelocity(flow, noise, batched=batched),
        noise.feats,
        [golden["in/cond"]],
        times=rescaled_times(config["steps"], config["rescale_t"]),
        negative=torch.zeros_like(golden["in/cond"]),
        guidance=Guidance.added(config["cfg_strength"], tuple(config["cfg_interval"])),
    )
    agree(out, golden["out/samples"])


@file("rvg_sampler_a")
def test_rescaled_guidance(golden: Golden) -> None:
    """The network of this file is written in its configuration. Of the condition its mean alone
    acts: 0.3, which the last step of the trajectory, outside the interval, shows."""
    config = golden.config

    def network(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        mixed = torch.einsum("bcxyz,cd->bdxyz", x, golden["in/W"])
        return mixed * (1 + t.view(-1, 1, 1, 1, 1) / 1000) + cond.mean()

    steps: list[Step] = []
    out = sample(
        DenseVelocity(network),
        golden["in/noise"],
        [torch.full((1, 1, 1), 0.3, device=golden.device)],
        times=rescaled_times(config["steps"], config["rescale_t"]),
        negative=torch.zeros(1, 1, 1, device=golden.device),
        guidance=Guidance(
            config["cfg_strength"], tuple(config["cfg_interval"]), config["guidance_rescale"]
        ),
        on_step=steps.append,
    )
    agree(torch.stack([step.x_next for step in steps]), golden["out/traj"])
    agree(out, golden["out/samples"])
