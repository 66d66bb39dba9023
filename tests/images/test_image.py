"""The image as a container engine runs it: what it serves, how it ends, whom it may run as."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.images.container import Container, podman, run_in

ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., Container]

READ_ONLY = ("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp")


@pytest.fixture
def config(image: str) -> dict[str, Any]:
    found = json.loads(podman("image", "inspect", image).stdout)[0]
    return {**found["Config"], "Healthcheck": found.get("Healthcheck")}


def invoke(container: Container, file: Path, media_type: str) -> bytes:
    """What SageMaker's path makes of the file."""
    headers = {"content-type": media_type}
    url, content = f"{container.url}/invocations", file.read_bytes()
    answer = httpx.post(url, content=content, headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.content


def test_serves_both_pipelines_and_ends_when_told(start: Start, samples: Path) -> None:
    container = start("serve", options=READ_ONLY)
    container.wait_until_ready()
    assert invoke(container, samples / "robot.png", "image/png").startswith(b"glTF")
    scene = samples / "playbot.compressed.ply"
    assert invoke(container, scene, "application/octet-stream").startswith(b"PK\x03\x04")
    assert container.run("entrypoint.sh", "health").returncode == 0
    assert "meshpress" in container.run("cat", "/proc/1/cmdline").stdout  # and not the shell
    assert container.stop() == 0


def test_what_was_accepted_survives_the_container(
    start: Start, samples: Path, tmp_path: Path
) -> None:
    """SIGTERM in the middle of the work: another container with the same folder finishes it."""
    tmp_path.chmod(0o1777)
    first = start("serve", data=tmp_path, DRAIN_SECONDS="0.1")
    first.wait_until_ready()
    image = (samples / "robot.png").read_bytes()
    jobs = [
        httpx.post(f"{first.url}/v1/jobs/mesh?seed={seed}", content=image, timeout=30).json()["id"]
        for seed in range(4)
    ]
    assert first.stop() == 0
    second = start("serve", data=tmp_path)
    second.wait_until_ready()
    for job in jobs:
        url = f"{second.url}/v1/jobs/{job}"
        second.wait_for(lambda url=url: httpx.get(url).json()["state"] == "succeeded")  # type: ignore[misc]
        assert httpx.get(f"{url}/artifacts/mesh.glb").content.startswith(b"glTF")
    assert second.stop() == 0


@pytest.mark.parametrize("user", ["0:0", "4242:4242"])
def test_serves_as_any_user_from_a_read_only_root(start: Start, samples: Path, user: str) -> None:
    container = start("serve", options=(*READ_ONLY, "--user", user))
    container.wait_until_ready()
    assert container.run("touch", "/opt/meshpress/x").returncode != 0
    assert invoke(container, samples / "robot.png", "image/png").startswith(b"glTF")
    assert container.stop() == 0


def test_serves_without_a_network(start: Start) -> None:
    """Nothing is fetched at start."""
    container = start("serve", options=("--network", "none"))
    health = ("entrypoint.sh", "health")
    container.wait_for(lambda: container.run(*health).returncode == 0)
    assert container.stop() == 0


def test_strict_guard_ends_it_with_the_reason_last(start: Start) -> None:
    container = start("serve", DEVICES="cuda:0")  # the engine was not asked for a GPU
    assert container.wait() == 2
    last = container.log().strip().splitlines()[-1]
    assert "cannot serve here" in last
    assert "libcuda" in last


def test_lenient_guard_answers_with_the_reason(start: Start) -> None:
    container = start("serve", DEVICES="cuda:0", GUARD="serve")
    container.wait_for(lambda: httpx.get(f"{container.url}/ping").status_code == 503)
    assert "libcuda" in httpx.get(f"{container.url}/readyz").json()["detail"]
    assert container.run("entrypoint.sh", "health").returncode == 1
    assert container.stop() == 0


def test_a_worker_alone_is_healthy_without_a_port(start: Start) -> None:
    container = start("worker", LOG_LEVEL="debug")
    container.wait_for(lambda: '"started"' in container.log())
    assert container.run("entrypoint.sh", "health").returncode == 0
    assert container.stop() == 0


def test_training_is_refused_where_sagemaker_looks(start: Start, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    container = start("train", options=("--volume", f"{tmp_path}:/opt/ml/output"))
    assert container.wait() == 2
    assert "it cannot train" in container.log()
    assert "it cannot train" in (tmp_path / "failure").read_text()


def test_a_later_install_cannot_replace_what_the_lock_fixed(image: str) -> None:
    """As an image built on this one would try; pip refuses before it asks any index."""
    replaced = run_in(image, "pip", "install", "--no-index", "numpy==1.26.4")
    assert replaced.returncode != 0
    assert "constraint" in replaced.stdout


def test_the_audit_that_ends_the_build_fails_on_a_file_that_is_not_the_locks(image: str) -> None:
    change = "echo >> $(python3 -c 'import numpy; print(numpy.__file__)')"
    audit = "meshpress doctor --lock /opt/meshpress/stack.lock"
    assert run_in(image, "sh", "-c", audit).returncode < 2
    result = run_in(image, "sh", "-c", f"{change}; {audit}")
    assert result.returncode == 2
    assert "numpy/__init__.py" in result.stdout


def test_says_what_it_is_to_orchestrators(config: dict[str, Any]) -> None:
    labels = config["Labels"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert labels["org.opencontainers.image.version"] == version
    assert labels["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"
    assert (config["Entrypoint"], config["Cmd"]) == (["entrypoint.sh"], ["serve"])
    assert config["StopSignal"] in {"SIGTERM", "15"}
    assert config["Healthcheck"]["Test"] == ["CMD", "entrypoint.sh", "health"]
    assert list(config["ExposedPorts"]) == ["8080/tcp"]


def test_nothing_of_the_builder_is_in_it(image: str, config: dict[str, Any]) -> None:
    """No settings of pip, no certificates, no wheels of the machine that built it."""
    names = {item.partition("=")[0] for item in config["Env"]}
    ours = {"PIP_CONSTRAINT", "UV_CONSTRAINT"}
    assert {name for name in names if name.startswith(("PIP_", "SSL_", "UV_"))} == ours
    mounts = "/run/secrets /run/wheelhouse /wheels /built /build /etc/pip.conf"
    left = run_in(image, "sh", "-c", f"ls -A {mounts}")
    assert left.stdout.split() in ([], ["/run/secrets:"])
