"""Python client of a meshpress service: submit, wait, download, and one call for all three.

Knows only the HTTP API: it imports httpx and the standard library, nothing of the service, and
within itself only by relative names, so that it also ships alone as the package `meshpress_client`.

    with Client("http://127.0.0.1:8080") as client:
        client.mesh("chair.png", "chair.glb")
        client.splat("garden.ply", "garden.sog")
"""

from .api import Client
from .errors import (
    CorruptDownload,
    JobCancelled,
    JobFailed,
    MeshpressClientError,
    NotFound,
    RequestRefused,
    ServiceBusy,
    ServiceFailed,
    ServiceUnreachable,
    WaitTimeout,
)
from .job import Job

__all__ = [
    "Client",
    "CorruptDownload",
    "Job",
    "JobCancelled",
    "JobFailed",
    "MeshpressClientError",
    "NotFound",
    "RequestRefused",
    "ServiceBusy",
    "ServiceFailed",
    "ServiceUnreachable",
    "WaitTimeout",
]
