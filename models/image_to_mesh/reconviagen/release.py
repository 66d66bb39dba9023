"""What ReconViaGen's release holds, and how its authors sample with it.

Networks and the scale of the latent are read from the release. The samplers' settings are those the
authors' app passes at every call: `pipeline.json` has TRELLIS's, made for another sum of guidance.
It opens no weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.image_to_mesh.trellis import release as trellis
from models.nn.guidance import Guidance

NETWORKS = {
    **trellis.NETWORKS,
    "structure_condition": "sparse_structure_vggt_cond",
    "latent_condition": "slat_vggt_cond",
}
"""Our names of the networks, and those in `pipeline.json`."""


@dataclass(frozen=True)
class SamplerSettings(trellis.SamplerSettings):
    """cfg_strength: the condition's weight against nothing's; 1 is no guidance.
    guidance_rescale: how far the spread that guidance widens is brought back, 0 to 1."""

    guidance_rescale: float = 0.0

    @property
    def guidance(self) -> Guidance:
        return Guidance(self.cfg_strength, self.cfg_interval, self.guidance_rescale)


STRUCTURE_SAMPLER = SamplerSettings(30, 7.5, (0.6, 1.0), 5.0, 0.7)
LATENT_SAMPLER = SamplerSettings(12, 7.5, (0.6, 1.0), 3.0, 0.5)


def read_release(folder: Path) -> trellis.Release:
    """Raises ReleaseUnfit, naming the file and the entry that is missing or of another form."""
    networks = trellis.read_networks(folder, NETWORKS)
    mean, std = trellis.read_latent_scale(folder)
    return trellis.Release(networks, STRUCTURE_SAMPLER, LATENT_SAMPLER, mean, std)
