"""Folders and ports: writable, roomy enough, free.

Knows nothing of what is kept there. Leaves nothing behind but an absent data folder, which is not
made either.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from service.guard.findings import Finding, fatal, ok, warning

# Packages that compile kernels where they run, the variable that says where they keep them, and
# where in the home folder they do so by themselves. torch stands for the driver's own compiler.
KERNEL_CACHES = (
    ("torch", "CUDA_CACHE_PATH", ".nv/ComputeCache"),
    ("triton", "TRITON_CACHE_DIR", ".triton/cache"),
    ("cupy", "CUPY_CACHE_DIR", ".cupy/kernel_cache"),
)


def check_data_dir(data_dir: Path, min_free_bytes: int) -> Iterator[Finding]:
    """The service can keep its queue and artifacts there."""
    folder = data_dir.absolute()
    fault = write_fault(folder)
    if fault:
        yield fatal(
            "data_dir",
            str(folder),
            fault,
            "Set MESHPRESS_DATA_DIR to a folder this user may write to, or mount a volume there.",
        )
        return
    free = shutil.disk_usage(_nearest(folder)).free
    if free < min_free_bytes:
        yield fatal(
            "data_dir",
            str(folder),
            f"{_size(free)} free; uploads are refused under {_size(min_free_bytes)}",
            "Free some disk, or lower MESHPRESS_MIN_FREE_BYTES.",
        )
    else:
        yield ok("data_dir", str(folder), f"writable, {_size(free)} free", free_bytes=free)


def check_caches(
    installed: Callable[[str], bool] | None = None, environment: Mapping[str, str] = os.environ
) -> Iterator[Finding]:
    """Libraries that compile kernels here can keep them: else every start compiles them again."""
    installed = installed or (lambda package: importlib.util.find_spec(package) is not None)
    for package, variable, usual in KERNEL_CACHES:
        if not installed(package):
            continue
        folder = Path(environment.get(variable) or Path.home() / usual)
        fault = write_fault(folder)
        if fault:
            yield warning(
                "R4",
                package,
                f"kernels are compiled at every start: {fault}",
                f"Set {variable} to a folder on a volume that this user may write to.",
            )
        else:
            yield ok("R4", package, f"writable: {folder}")


def check_temporary() -> Iterator[Finding]:
    """A folder for scratch files exists."""
    try:
        folder = tempfile.gettempdir()
    except OSError as error:
        yield fatal("temporary", "TMPDIR", str(error), "Set TMPDIR to a writable folder.")
        return
    yield ok("temporary", folder, f"writable, {_size(shutil.disk_usage(folder).free)} free")


def check_port(host: str, port: int) -> Iterator[Finding]:
    """Nobody else listens where the API will."""
    subject = f"{host}:{port}"
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            yield warning(
                "port",
                subject,
                "in use: by a running meshpress, or by something else",
                "Stop it, or choose another port: meshpress serve --port 8081",
            )
        else:
            yield fatal(
                "port",
                subject,
                f"cannot be listened on: {error.strerror or error}",
                "Set MESHPRESS_HOST to an address of this machine (0.0.0.0 for all of them) and "
                "MESHPRESS_PORT to a port this user may open (1024 or above).",
            )
        return
    yield ok("port", subject, "free")


def write_fault(folder: Path) -> str:
    """Why no file can be made in `folder`, or in it once it is made; empty when one can."""
    nearest = _nearest(folder)
    if not nearest.is_dir():
        return f"{nearest} is not a folder"
    try:
        with tempfile.NamedTemporaryFile(dir=nearest, prefix=".meshpress-"):
            return ""
    except OSError as error:
        return f"{nearest} is not writable: {error.strerror or error}"


def _nearest(folder: Path) -> Path:
    """The folder itself, or the closest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
