"""Scene operations: what is done to splats before they are encoded: `operations.apply`."""
