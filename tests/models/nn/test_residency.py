"""Where networks lie between their turns, on a device with a given amount of free memory."""

from __future__ import annotations

import pytest
import torch

from models.nn.residency import should_offload


@pytest.mark.parametrize(
    ("free", "asked", "expected"),
    [
        (8, None, True),
        (16, None, False),
        (8, "auto", True),
        (8, "off", False),
        (16, "on", True),
    ],
)
def test_free_memory_decides_unless_a_setting_does(
    monkeypatch: pytest.MonkeyPatch, free: int, asked: str | None, expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda place: (free, 80))
    environ = {} if asked is None else {"MESHPRESS_OFFLOAD": asked}
    assert should_offload("cuda:0", 12, environ) is expected
    assert should_offload("cpu", 12, environ) is False
