"""Parts of neural networks on sparse voxels and tokens: tensors, convolution, attention, samplers.

They know no pipeline, no checkpoint and no file. Everything here imports torch at its top, so
nothing of the base install may import it at its own.
"""
