"""The HTTP face of the service: one file a noun; tensors and pipelines stay out of it."""
