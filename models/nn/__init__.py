"""Parts of networks: sparse tensors, convolution, attention, blocks, samplers. Needs PyTorch."""
