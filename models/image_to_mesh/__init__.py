"""Image(s) -> textured mesh. Entry point: `pipeline.load`."""
