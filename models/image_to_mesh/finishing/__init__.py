"""From a closed surface to files: simplify, texture, place, export.

Knows nothing of how the surface was found.
"""
