"""Random scenes and a writer of 3DGS .ply, for the tests here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.splat_to_sog.encode import encode
from models.splat_to_sog.options import SogOptions
from models.splat_to_sog.splats import COEFFICIENTS, Splats

MakeSplats = Callable[..., Splats]
WritePly = Callable[..., Path]


def random_splats(rng: np.random.Generator, n: int, degree: int = 0) -> Splats:
    """Values as a trained scene has them."""

    def normal(*shape: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
        return (rng.normal(size=shape) * scale + shift).astype(np.float32)

    return Splats(
        means=normal(n, 3, scale=3.0),
        scales=normal(n, 3, shift=-4.0),
        quats=normal(n, 4),
        opacities=normal(n, scale=3.0),
        sh0=normal(n, 3),
        shN=normal(n, 3, COEFFICIENTS[degree], scale=0.2),
    )


@pytest.fixture
def make_splats(rng: np.random.Generator) -> MakeSplats:
    """make_splats(n, degree=0): a scene drawn afresh for each test."""
    return functools.partial(random_splats, rng)


@pytest.fixture(scope="session")
def encoded_scene() -> dict[str, bytes]:
    """The files of one scene of 100 splats with harmonics of degree 1; not to be changed."""
    return encode(random_splats(np.random.default_rng(7), 100, 1), SogOptions()).files


@pytest.fixture
def write_ply(tmp_path: Path) -> WritePly:
    """write_ply(splats, **changes): a 3DGS .ply, whose header the changes can bend."""

    def write(
        splats: Splats,
        *,
        name: str = "scene.ply",
        order: np.random.Generator | None = None,
        extra: dict[str, tuple[str, np.ndarray]] | None = None,
        drop: tuple[str, ...] = (),
        comments: tuple[str, ...] = (),
        header: Callable[[str], str] = lambda text: text,
        data: Callable[[bytes], bytes] = lambda body: body,
    ) -> Path:
        n, _, k = splats.shN.shape
        columns: dict[str, tuple[str, np.ndarray]] = {}
        columns |= {c: ("float", splats.means[:, i]) for i, c in enumerate("xyz")}
        columns |= {c: ("float", np.zeros(n)) for c in ("nx", "ny", "nz")}
        columns |= {f"f_dc_{i}": ("float", splats.sh0[:, i]) for i in range(3)}
        rest = splats.shN.reshape(n, 3 * k)
        columns |= {f"f_rest_{i}": ("float", rest[:, i]) for i in range(3 * k)}
        columns |= {"opacity": ("float", splats.opacities)}
        columns |= {f"scale_{i}": ("float", splats.scales[:, i]) for i in range(3)}
        columns |= {f"rot_{i}": ("float", splats.quats[:, i]) for i in range(4)}
        columns |= extra or {}
        columns = {c: v for c, v in columns.items() if c not in drop}
        if order is not None:
            names = list(columns)
            order.shuffle(names)
            columns = {c: columns[c] for c in names}
        kinds = {"float": "<f4", "double": "<f8", "uchar": "u1", "int": "<i4"}
        table = np.empty(n, [(c, kinds[kind]) for c, (kind, _) in columns.items()])
        for c, (_, values) in columns.items():
            table[c] = values
        text = "ply\nformat binary_little_endian 1.0\n"
        text += "".join(f"comment {comment}\n" for comment in comments)
        text += f"element vertex {n}\n"
        text += "".join(f"property {kind} {c}\n" for c, (kind, _) in columns.items())
        text += "end_header\n"
        path = tmp_path / name
        path.write_bytes(header(text).encode() + data(table.tobytes()))
        return path

    return write
