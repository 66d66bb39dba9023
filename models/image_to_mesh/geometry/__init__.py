"""From cut-out images to a closed surface in the first camera's frame.

Knows nothing of textures or files.
"""
