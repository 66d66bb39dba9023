"""The service around the pipelines: HTTP, job queue, storage, guard, CLI and client."""

__version__ = "0.1.0"
