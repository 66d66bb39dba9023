"""Options of image(s) -> mesh, a model per pipeline; HTTP, CLI and docs derive from them.

Knows nothing of arrays: importing this package is cheap, so the HTTP layer may.
"""

from models.image_to_mesh.options.direct3d_s2 import Direct3DS2Options
from models.image_to_mesh.options.embedded import EmbeddedOptions
from models.image_to_mesh.options.reconviagen import ReconViaGenOptions
from models.image_to_mesh.options.shared import GaussianOptions, MeshOptions, NetworkOptions
from models.image_to_mesh.options.trellis import TrellisOptions

__all__ = [
    "Direct3DS2Options",
    "EmbeddedOptions",
    "GaussianOptions",
    "MeshOptions",
    "NetworkOptions",
    "ReconViaGenOptions",
    "TrellisOptions",
]
