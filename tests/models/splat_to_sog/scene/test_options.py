"""Options refuse what has no meaning, naming field and value; importing them is cheap."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from models.splat_to_sog.scene.options import SceneOptions


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"keep": 5, "keep_fraction": 0.5}, "keep is 5 and keep_fraction is 0.5"),
        ({"min_size": 2, "max_size": 1}, "min_size 2.0 is above max_size 1.0"),
        ({"box": [0, 0, 0, 1, -1, 1]}, "y runs from 0.0 down to -1.0"),
        ({"sphere": [0, 0, 0, 0]}, "radius is 0.0"),
        ({"box": [0, 1]}, "at least 6"),
        ({"translate": [0, float("nan"), 0]}, "finite"),
        ({"translate": [0, 1e39, 0]}, "less than or equal to 10"),
        ({"box": [-1e39, 0, 0, 1, 1, 1]}, "greater than or equal to -10"),
        ({"scale": 0}, "greater than 0"),
        ({"min_opacity": 1.5}, "less than or equal to 1"),
        ({"keep": 0}, "greater than or equal to 1"),
        ({"rotation": [1, 2, 3]}, "rotation"),
    ],
)
def test_nonsense_is_refused_by_name(values, words) -> None:
    with pytest.raises(ValidationError, match=words):
        SceneOptions(**values)


def test_count_to_keep() -> None:
    assert SceneOptions().count_to_keep(10) == 10
    assert SceneOptions(keep=4).count_to_keep(10) == 4
    assert SceneOptions(keep=40).count_to_keep(10) == 10
    assert SceneOptions(keep_fraction=0.25).count_to_keep(10) == 3
    assert SceneOptions(keep_fraction=1e-9).count_to_keep(10) == 1


def test_every_field_is_described_and_json() -> None:
    schema = SceneOptions.model_json_schema()
    assert all(field["description"] for field in schema["properties"].values())
    options = SceneOptions(box=[0, 0, 0, 1, 1, 1], keep_fraction=0.5)
    assert SceneOptions.model_validate_json(options.model_dump_json()) == options


def test_import_needs_no_arrays() -> None:
    code = (
        "import sys, models.splat_to_sog.scene.options; "
        "print([name for name in ('numpy', 'scipy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
