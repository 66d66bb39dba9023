"""BiRefNet: a network that tells an object from whatever is behind it, on any background.

Zheng et al., Bilateral Reference for High-Resolution Dichotomous Image Segmentation, 2024
(arXiv 2401.03407). Its modules import torch; this one does not, and knows nothing of geometry.
"""
