"""TRELLIS image-large: image(s) -> structured latent -> textured mesh or Gaussians.

Xiang et al., Structured 3D Latents for Scalable and Versatile 3D Generation, 2024
(arXiv 2412.01506). Modules here import torch at their top, so nothing of the base install may
import them at its own.
"""
