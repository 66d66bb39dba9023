"""Gaussian splat -> SOG v2 bundle. Entry point: `pipeline.load`."""
