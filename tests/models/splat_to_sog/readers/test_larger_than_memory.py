"""A scene three times as large as the memory a process may take is read and cleaned to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.splat_to_sog.readers import read
from models.splat_to_sog.scratch import Scratch
from models.splat_to_sog.splats import ATTRIBUTES, drop_non_finite

ROWS = 400_000
MEMORY_BYTES = 32 << 20  # beyond what the imports took; the scene alone takes 94 MB
BAD = (0, 7, 262_144, ROWS - 1)

CHILD = """
import resource, sys, threading
from pathlib import Path
import numpy as np
from models.splat_to_sog.readers import read
from models.splat_to_sog.scratch import Scratch
from models.splat_to_sog.splats import ATTRIBUTES, drop_non_finite

path, spill, out, room, budget = sys.argv[1:]
threading.stack_size(1 << 18)
status = Path("/proc/self/status").read_text().split()
taken = 1024 * int(status[status.index("VmData:") + 1])
resource.setrlimit(resource.RLIMIT_DATA, (taken + int(room), taken + int(room)))
scratch = Scratch(Path(spill), int(budget))
cleaned = drop_non_finite(read(Path(path), "big.ply", scratch), scratch)
assert len(list(Path(spill).iterdir())) == 0
for name in ATTRIBUTES:  # written by row, as the arrays do not fit
    array = getattr(cleaned.splats.cut_degree(2, scratch), name)
    with open(Path(out) / name, "wb") as file:
        for start in range(0, len(array), 4096):
            file.write(np.ascontiguousarray(array[start : start + 4096]).data)
print(cleaned.dropped_total)
"""


@pytest.fixture(scope="module")
def big_ply(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """59 columns of noise, a NaN in four rows."""
    rng = np.random.default_rng(3)
    table = rng.random((ROWS, 59), np.float32)
    for column, row in enumerate(BAD):
        table[row, column * 15] = np.nan
    names = [*"xyz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(45))]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    text = f"ply\nformat binary_little_endian 1.0\nelement vertex {ROWS}\n"
    text += "".join(f"property float {name}\n" for name in names) + "end_header\n"
    path = tmp_path_factory.mktemp("big") / "big.ply"
    with path.open("wb") as file:
        file.write(text.encode())
        table.tofile(file)
    return path, table


def in_child(path: Path, tmp_path: Path, budget: int) -> subprocess.CompletedProcess[str]:
    for name in ("spill", "out"):
        (tmp_path / name).mkdir(exist_ok=True)
    arguments = [path, tmp_path / "spill", tmp_path / "out", MEMORY_BYTES, budget]
    return subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, arguments)],
        cwd=Path(__file__).parents[4],
        env={"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA is Linux's")
def test_reads_and_cleans_what_does_not_fit(big_ply, tmp_path: Path) -> None:
    path, table = big_ply
    done = in_child(path, tmp_path, budget=1 << 20)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(BAD))]
    kept = np.delete(table, BAD, axis=0)
    rest = kept[:, 6:51].reshape(-1, 3, 15)[:, :, :8]
    expected = {
        "means": kept[:, :3],
        "sh0": kept[:, 3:6],
        "shN": np.ascontiguousarray(rest),
        "opacities": kept[:, 51],
        "scales": kept[:, 52:55],
        "quats": kept[:, 55:],
    }
    for name in ATTRIBUTES:
        found = np.fromfile(tmp_path / "out" / name, np.float32)
        np.testing.assert_array_equal(found, expected[name].ravel(), name)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA is Linux's")
def test_without_files_the_same_process_runs_out_of_memory(big_ply, tmp_path: Path) -> None:
    """The limit bites: the test above proves something."""
    done = in_child(big_ply[0], tmp_path, budget=1 << 40)
    assert done.returncode != 0 and "MemoryError" in done.stderr


def test_spilled_arrays_hold_the_same_values(big_ply, tmp_path: Path) -> None:
    path, _ = big_ply
    inside, outside = Scratch(tmp_path, 1 << 40), Scratch(tmp_path, 0)
    a, b = (read(path, "big.ply", scratch) for scratch in (inside, outside))
    assert inside.spilled_bytes == 0 and outside.used_bytes == 0
    assert all(isinstance(getattr(b, name), np.memmap) for name in ATTRIBUTES)
    a, b = drop_non_finite(a).splats, drop_non_finite(b, outside).splats
    assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ATTRIBUTES)
