"""Direct3D-S2: one image -> geometry at 512^3 and 1024^3, released as v1.0 and v1.1.

Wu et al., Direct3D-S2: Gigascale 3D Generation Made Easy with Spatial Sparse Attention, 2025
(arXiv 2505.17412). It makes no colours; `colour` bakes those of the input image. Modules here
import torch at their top, so nothing of the base install may import them at its own.
"""
