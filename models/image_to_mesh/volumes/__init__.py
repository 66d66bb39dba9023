"""Fields on sparse voxels: a surface out of one, and a mesh into one. No dense grid anywhere."""
