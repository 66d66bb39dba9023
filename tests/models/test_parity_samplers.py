"""Time schedules and flow sampling against files of the reference samplers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from models.image_to_mesh.trellis.slat_flow import SlatFlow
from models.image_to_mesh.trellis.ss_flow import SparseStructureFlow
from models.nn.guidance import Guidance
from models.nn.samplers import Step, rescaled_times, sample, shifted_times
from models.nn.sparse_tensor import SparseTensor
from models.nn.velocity import DenseVelocity, SparseVelocity

RELATIVE = 1e-4
"""Of the largest value: what the files allow fp32 paths."""

SCHEDULES = ["1.0_12", "1.0_25", "3.0_12", "3.0_25", "5.0_12", "5.0_25"]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)


def read(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict]:
    with safe_open(path, "pt", device=device) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(
            file.metadata()["config"]
        )


def load(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    weights = {k[2:]: t.float() for k, t in tensors.items() if k.startswith("w/")}
    module.load_state_dict(weights, strict=True)
    module.to(next(iter(tensors.values())).device).eval()


def agree(out: Tensor, expected: Tensor) -> None:
    assert out.shape == expected.shape
    assert (out - expected).abs().max() <= RELATIVE * expected.abs().max()


@pytest.mark.parametrize("name", [pytest.param(s, id=f"t_seq_{s}") for s in SCHEDULES])
def test_rescaled_times(shared: Callable[[str], Path], name: str) -> None:
    """To the last bit: whether a step lies in the guidance interval may hang on it."""
    expected = json.loads(shared("data/parity/index.json").read_text())[f"t_seq_{name}"]["t_seq"]
    rescale_t, steps = name.split("_")
    assert rescaled_times(int(steps), float(rescale_t)) == expected


@pytest.mark.parametrize("name", ["d3ds2_fm_euler_shift6_n50", "d3ds2_fm_euler_shift8_n15"])
def test_shifted_times(shared: Callable[[str], Path], name: str) -> None:
    tensors, config = read(shared(f"data/parity/{name}.safetensors"))
    times = torch.tensor(shifted_times(config["steps"], config["shift"]))
    agree(times, tensors["out/sigmas"])
    agree(1000 * times[:-1], tensors["out/timesteps"])


@pytest.mark.parametrize("batched", [False, True], ids=["two_passes", "one_batch"])
@pytest.mark.parametrize("name", ["trellis_sampler_interval_a"])
def test_dense_sampling(
    shared: Callable[[str], Path], name: str, batched: bool, device: str
) -> None:
    tensors, config = read(shared(f"data/parity/{name}.safetensors"), device)
    weights, shape = read(shared(f"data/parity/{config['model']}.safetensors"), device)
    flow = SparseStructureFlow(**{k: v for k, v in shape.items() if k != "pe_mode"})
    load(flow, weights)

    steps: list[Step] = []
    out = sample(
        DenseVelocity(flow, batched=batched),
        tensors["in/noise"],
        [tensors["in/cond"]],
        times=rescaled_times(config["steps"], config["rescale_t"]),
        negative=torch.zeros_like(tensors["in/cond"]),
        guidance=Guidance.added(config["cfg_strength"], tuple(config["cfg_interval"])),
        on_step=steps.append,
    )
    agree(out, tensors["out/samples"])
    agree(torch.stack([step.x_next for step in steps]), tensors["out/traj"])
    agree(steps[-1].x0, tensors["out/pred_x_0_last"])


@pytest.mark.parametrize("batched", [False, True], ids=["two_passes", "one_batch"])
@pytest.mark.parametrize("name", ["trellis_slat_sampler"])
def test_sparse_sampling(
    shared: Callable[[str], Path], name: str, batched: bool, device: str
) -> None:
    tensors, config = read(shared(f"data/parity/{name}.safetensors"), device)
    weights, shape = read(shared(f"data/parity/{config['model']}.safetensors"), device)
    flow = SlatFlow(**{k: v for k, v in shape.items() if k not in ("pe_mode", "patch_size")})
    load(flow, weights)

    noise = SparseTensor(tensors["in/noise"], tensors["in/coords"])
    out = sample(
        SparseVelocity(flow, noise, batched=batched),
        noise.feats,
        [tensors["in/cond"]],
        times=rescaled_times(config["steps"], config["rescale_t"]),
        negative=torch.zeros_like(tensors["in/cond"]),
        guidance=Guidance.added(config["cfg_strength"], tuple(config["cfg_interval"])),
    )
    agree(out, tensors["out/samples"])


@pytest.mark.parametrize("name", ["rvg_sampler_a"])
def test_rescaled_guidance(shared: Callable[[str], Path], name: str, device: str) -> None:
    """The network of this file is written in its configuration. Of the condition its mean alone
    acts: 0.3, which the last step of the trajectory, outside the interval, shows."""
    tensors, config = read(shared(f"data/parity/{name}.safetensors"), device)

    def network(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        mixed = torch.einsum("bcxyz,cd->bdxyz", x, tensors["in/W"])
        return mixed * (1 + t.view(-1, 1, 1, 1, 1) / 1000) + cond.mean()

    steps: list[Step] = []
    out = sample(
        DenseVelocity(network),
        tensors["in/noise"],
        [torch.full((1, 1, 1), 0.3, device=device)],
        times=rescaled_times(config["steps"], config["rescale_t"]),
        negative=torch.zeros(1, 1, 1, device=device),
        guidance=Guidance(
            config["cfg_strength"], tuple(config["cfg_interval"]), config["guidance_rescale"]
        ),
        on_step=steps.append,
    )
    agree(torch.stack([step.x_next for step in steps]), tensors["out/traj"])
    agree(out, tensors["out/samples"])
