"""The image under test and containers of it.

TEST_IMAGE names the image (`third_party/images/build.sh cpu` builds it); without one these skip.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.images.container import Container, limits, podman


@pytest.fixture(scope="session")
def image() -> str:
    """Its name."""
    name = os.environ.get("TEST_IMAGE")
    if not name:
        pytest.skip("no image to test: build one with third_party/images/build.sh, set TEST_IMAGE")
    for tool in ("podman", "runc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    return name


@pytest.fixture
def start(image: str, free_port: int) -> Iterator[Callable[..., Container]]:
    """`start("serve", user="4242:4242", DEVICES="cpu")`: a container of the image on a free port.

    options:  for the engine, such as --read-only
    data:     a folder to keep its data in; else a volume that goes with it
    settings: of meshpress
    """
    started = []

    def begin(
        *words: str, options: tuple[str, ...] = (), data: Path | None = None, **settings: str
    ) -> Container:
        container = Container(f"test-{secrets.token_hex(6)}", f"http://127.0.0.1:{free_port}")
        started.append(container.name)
        command = ["--name", container.name, "--no-healthcheck", *limits()]
        if "--network" not in options:
            command += ["--network", "host"]
        for name, value in {"PORT": str(free_port), **settings}.items():
            command += ["--env", f"MESHPRESS_{name}={value}"]
        if data is not None:
            command += ["--volume", f"{data}:/var/lib/meshpress"]
        podman("run", "--detach", *command, *options, image, *words)
        return container

    yield begin
    for name in started:
        podman("rm", "--force", "--volumes", "--time", "0", name, check=False)
