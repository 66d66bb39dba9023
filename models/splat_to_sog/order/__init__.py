"""The order in which splats are stored: it costs nothing to read and decides what textures take.

SOG says only that splat i sits at pixel (i mod W, i div W). `hilbert_order` makes neighbours in
space neighbours in the list; `arrange` goes on from there with all that a splat stores.
"""

from models.splat_to_sog.order.arrangement import Arrangement, arrange
from models.splat_to_sog.order.hilbert import hilbert_keys, hilbert_order

__all__ = ["Arrangement", "arrange", "hilbert_keys", "hilbert_order"]
