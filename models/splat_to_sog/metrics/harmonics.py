"""The real spherical harmonics of 3DGS above the constant one, to degree 4.

Does not know colours or splats. One formula serves numpy arrays and, compiled, single numbers.
Constants and signs: Fridovich-Keil et al., "Plenoxels", 2022, as every 3DGS file assumes them.
"""

from __future__ import annotations

from typing import Any


def basis(x: Any, y: Any, z: Any) -> tuple[Any, ...]:
    """24 values in the order of f_rest for the unit direction (x, y, z), floats or arrays [M].

    A splat of degree 1, 2 or 3 uses the first 3, 8 or 15.
    """
    xx, yy, zz = x * x, y * y, z * z
    xy, yz, xz = x * y, y * z, x * z
    return (
        -0.4886025119029199 * y,
        0.4886025119029199 * z,
        -0.4886025119029199 * x,
        1.0925484305920792 * xy,
        -1.0925484305920792 * yz,
        0.31539156525252005 * (2 * zz - xx - yy),
        -1.0925484305920792 * xz,
        0.5462742152960396 * (xx - yy),
        -0.5900435899266435 * y * (3 * xx - yy),
        2.890611442640554 * xy * z,
        -0.4570457994644658 * y * (4 * zz - xx - yy),
        0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
        -0.4570457994644658 * x * (4 * zz - xx - yy),
        1.445305721320277 * z * (xx - yy),
        -0.5900435899266435 * x * (xx - 3 * yy),
        2.5033429417967046 * xy * (xx - yy),
        -1.7701307697799304 * yz * (3 * xx - yy),
        0.9461746957575601 * xy * (7 * zz - 1),
        -0.6690465435572892 * yz * (7 * zz - 3),
        0.10578554691520431 * (zz * (35 * zz - 30) + 3),
        -0.6690465435572892 * xz * (7 * zz - 3),
        0.47308734787878004 * (xx - yy) * (7 * zz - 1),
        -1.7701307697799304 * xz * (xx - 3 * yy),
        0.6258357354491761 * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)),
    )
