"""The OpenAPI document says what the service does; the process holds no heavy library."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from service.app import ROUTERS, create_app
from service.http.schemas import JobDetail, JobView, Problem
from service.pipelines import PIPELINES
from service.settings import read_settings

ROOT = Path(__file__).resolve().parents[3]
TASKS = ("mesh", "splat")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(read_settings({})).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_route_is_described(document: dict[str, Any]) -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    shown = {(path, method) for path, method, _ in operations(document)}
    for route in routes:
        for method in (route.methods or set()) - {"HEAD"}:
            assert (route.path, method.lower()) in shown
    for path, method, operation in operations(document):
        assert operation["summary"], (path, method)
        assert "4XX" in operation["responses"], (path, method)
        assert "422" not in operation["responses"], "the framework's own error is never sent"


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for child in node.values():
                yield from references(child)
        elif isinstance(node, list):
            for child in node:
                yield from references(child)

    found = set(references(document))
    assert found
    for reference in found:
        node = document
        for word in reference.removeprefix("#/").split("/"):
            node = node[word]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("path", ["/v1/{}", "/v1/jobs/{}"])
def test_every_option_is_a_parameter_and_a_form_field(
    document: dict[str, Any], path: str, task: str
) -> None:
    operation = document["paths"][path.format(task)]["post"]
    parameters = {parameter["name"] for parameter in operation["parameters"]}
    content = operation["requestBody"]["content"]
    fields = content["multipart/form-data"]["schema"]["properties"]
    for entry in (entry for entry in PIPELINES if entry.task == task):
        assert set(entry.options.model_fields) <= parameters
        assert set(entry.options.model_fields) <= set(fields)
        assert set(entry.media_types) <= set(content)
    assert {"pipeline", "priority", "Idempotency-Key", "Prefer"} <= parameters


def test_examples_are_valid(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    JobView.model_validate(schemas["JobView"]["example"], strict=False)
    Problem.model_validate(schemas["Problem"]["example"])
    operation = document["paths"]["/v1/jobs/{job_id}"]["get"]
    problem = operation["responses"]["4XX"]["content"]["application/problem+json"]
    Problem.model_validate(problem["example"])


def test_the_pipelines_page_says_what_validation_says(api: Any) -> None:
    listed = api.client.get("/v1/pipelines").json()["pipelines"]
    assert [row["name"] for row in listed] == [entry.name for entry in PIPELINES]
    assert [row["default"] for row in listed].count(True) == len(TASKS)
    for row in listed:
        assert row["available"] is (row["reason"] == "")
    options = {row["name"]: row for row in listed[0]["options"]}
    faces = options["faces"]
    assert faces["allowed"] == "a whole number from 500 to 500000"
    assert faces["default"] == faces["json_schema"]["default"] == 20_000
    refused = api.client.post(
        "/v1/jobs/mesh?faces=1", content=b"\x89PNG\r\n\x1a\n" + bytes(20)
    ).json()
    assert refused["errors"][0]["allowed"] == faces["allowed"]


def test_links_of_the_index_lead_somewhere(api: Any, document: dict[str, Any]) -> None:
    for path in api.client.get("/").json()["links"].values():
        assert path in document["paths"] or api.client.get(path).status_code == 200, path


def test_a_served_job_has_the_documented_members(api: Any) -> None:
    created = api.client.post("/v1/jobs/mesh", content=b"\x89PNG\r\n\x1a\n" + bytes(20)).json()
    shown = api.client.get(created["links"]["self"]).json()
    assert set(shown) == set(JobDetail.model_fields)


def test_the_api_process_loads_no_heavy_library() -> None:
    heavy = "numpy torch PIL cv2 scipy trimesh numba skimage models.splat_to_sog.pipeline"
    script = (
        "import sys, service.http.server\n"
        f"print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
