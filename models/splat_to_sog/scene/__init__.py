"""Scene operations: what a user does to splats before they are encoded. Entry: `operations.apply`."""
