"""The fuzz targets without their engine: all seeds, and the same seeded mutations on every run."""

from __future__ import annotations

from pathlib import Path

import pytest

ROUNDS = {
    "ply": 1000,
    "compressed_ply": 1000,
    "splat": 600,
    "ksplat": 600,
    "spz": 800,
    "sog": 250,
    "streamed": 150,
}
FUZZ = Path(__file__).parents[3] / "fuzz"


def test_every_target_has_a_program_and_is_run_here(targets) -> None:
    programs = {path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.py")}
    assert programs == set(targets.TARGETS) == set(ROUNDS)


@pytest.mark.parametrize("name", ROUNDS)
def test_mutations_are_read_or_refused(targets, name: str) -> None:
    read, refused = targets.smoke(name, ROUNDS[name])
    assert read > 10 and refused > 10  # the mutations reach both sides of every check


def test_a_row_left_out_is_found(targets, monkeypatch) -> None:
    """The oracle can fail: a reader that forgets its last row."""

    def forgetful(path, name, scratch):
        splats = targets.Splats.empty(5, 0, scratch)
        for attribute in targets.ATTRIBUTES:
            getattr(splats, attribute)[:4] = 1
        return splats

    monkeypatch.setattr(targets, "read", forgetful)
    with pytest.raises(AssertionError, match="means: rows were left out"):
        targets.run(targets.TARGETS["ply"], b"any")
