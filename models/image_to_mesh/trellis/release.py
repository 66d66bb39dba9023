"""What a released checkpoint says of itself: its networks, its samplers, its latent's scale.

Reads `pipeline.json` and the JSON beside each network, as `microsoft/TRELLIS-image-large` lays them
out. It opens no weights; every constant of the pipeline comes from here, none from the code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.context import Unavailable
from models.nn.guidance import Guidance

NETWORKS = {
    "structure_flow": "sparse_structure_flow_model",
    "structure_decoder": "sparse_structure_decoder",
    "latent_flow": "slat_flow_model",
    "mesh_decoder": "slat_decoder_mesh",
    "gaussian_decoder": "slat_decoder_gs",
}
"""Our names of the networks, and those in `pipeline.json`."""


class ReleaseUnfit(Unavailable):
    """The folder is not the release it should be, or not a whole one."""

    code = "weights_unfit"


@dataclass(frozen=True)
class SamplerSettings:
    """steps: Euler steps; cfg_strength: guidance, 0 is none; cfg_interval: times at which it acts;
    rescale_t: above 1, more of the steps lie near the noise."""

    steps: int
    cfg_strength: float
    cfg_interval: tuple[float, float]
    rescale_t: float

    @property
    def guidance(self) -> Guidance:
        return Guidance.added(self.cfg_strength, self.cfg_interval)


@dataclass(frozen=True)
class NetworkFile:
    """One network: the official class and its arguments, and where its weights lie."""

    class_name: str
    args: Mapping[str, Any]
    weights: Path


@dataclass(frozen=True)
class Release:
    """networks: by our names. latent_mean, latent_std: [C] of the latent that decoders take."""

    networks: Mapping[str, NetworkFile]
    structure_sampler: SamplerSettings
    latent_sampler: SamplerSettings
    latent_mean: tuple[float, ...]
    latent_std: tuple[float, ...]


def read_release(folder: Path) -> Release:
    """Raises ReleaseUnfit, naming the file and the entry that is missing or of another form."""
    path = folder / "pipeline.json"
    args = _entry(_json(path), "args", path)
    mean, std = read_latent_scale(folder)
    return Release(
        read_networks(folder, NETWORKS),
        _sampler(args, "sparse_structure_sampler", path),
        _sampler(args, "slat_sampler", path),
        mean,
        std,
    )


def read_networks(folder: Path, names: Mapping[str, str]) -> dict[str, NetworkFile]:
    """By our names; `names` has those in `pipeline.json`. Raises ReleaseUnfit."""
    path = folder / "pipeline.json"
    models = _entry(_entry(_json(path), "args", path), "models", path)
    return {
        ours: _network(folder / str(_entry(models, theirs, path))) for ours, theirs in names.items()
    }


def read_latent_scale(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of the latent. Raises ReleaseUnfit."""
    path = folder / "pipeline.json"
    scale = _entry(_entry(_json(path), "args", path), "slat_normalization", path)
    return _numbers(scale, "mean", path), _numbers(scale, "std", path)


def _network(stem: Path) -> NetworkFile:
    path = stem.with_name(f"{stem.name}.json")
    config = _json(path)
    name, args = _entry(config, "name", path), _entry(config, "args", path)
    return NetworkFile(str(name), args, stem.with_name(f"{stem.name}.safetensors"))


def _sampler(args: Mapping[str, Any], key: str, path: Path) -> SamplerSettings:
    params = _entry(_entry(args, key, path), "params", path)
    low, high = _numbers(params, "cfg_interval", path, count=2)
    steps, strength, rescale = (
        _numbers(params, name, path, count=1)[0] for name in ("steps", "cfg_strength", "rescale_t")
    )
    return SamplerSettings(int(steps), strength, (low, high), rescale)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ReleaseUnfit(f"{path} cannot be read: {error.strerror}.", next_step=_PULL) from error
    except ValueError as error:
        raise ReleaseUnfit(f"{path} is not JSON: {error}.", next_step=_PULL) from error
    if not isinstance(content, dict):
        raise ReleaseUnfit(f"{path} holds no JSON object.", next_step=_PULL)
    return content


def _entry(mapping: Any, key: str, path: Path) -> Any:
    if not isinstance(mapping, dict) or key not in mapping:
        raise ReleaseUnfit(f"{path} has no entry {key!r} where one is needed.", next_step=_PULL)
    return mapping[key]


def _numbers(mapping: Any, key: str, path: Path, count: int | None = None) -> tuple[float, ...]:
    """A number, or a list of them; `count` says how many there must be."""
    value = _entry(mapping, key, path)
    try:
        numbers = tuple(map(float, value if isinstance(value, list) else [value]))
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or count not in (None, len(numbers)):
        wanted = "numbers" if count is None else f"{count} number{'s' * (count > 1)}"
        raise ReleaseUnfit(f"{path}: {key!r} is {value!r}, not {wanted}.", next_step=_PULL)
    return numbers


_PULL = "Run `meshpress models verify`, then pull what it names."
