"""Where the mesh lies among the photos' cameras: `register` finds it, by outlines and colours.

The networks give a mesh in a frame of its own and cameras in another. Knows nothing of networks:
plain arrays, no torch.
"""
