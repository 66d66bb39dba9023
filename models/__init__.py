"""What happens to pictures and splats: pure pipelines over arrays and files.

Nothing here knows HTTP, jobs or queues; `service` calls in, never the other way.
"""
