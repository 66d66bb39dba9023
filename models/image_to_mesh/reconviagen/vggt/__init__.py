"""VGGT: photos of one scene -> tokens that agree about its shape, and a camera for each photo.

Wang et al., "VGGT: Visual Geometry Grounded Transformer" (CVPR 2025, arXiv 2503.11651). The
aggregator and the camera head, under the names of the official checkpoints; it knows no object, no
mesh and no file.
"""
