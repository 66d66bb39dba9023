"""What a failed job made is gone while its exception is still held; where it failed is not."""

from __future__ import annotations

import traceback
import weakref

import pytest
import torch

from models.nn.memory import memory_returned


class Held:
    """Something that can be watched."""


def fails(watched: list[weakref.ref[Held]]) -> None:
    local, shared = Held(), Held()
    watched += [weakref.ref(local), weakref.ref(shared)]

    def inner() -> None:
        raise RuntimeError(f"out of luck with {len([shared])}")

    inner()


def run(watched: list[weakref.ref[Held]]) -> None:
    with memory_returned("cpu"):
        fails(watched)


def test_locals_and_what_closures_share_are_gone_while_the_error_is_held() -> None:
    watched: list[weakref.ref[Held]] = []
    with pytest.raises(RuntimeError, match="out of luck with 1") as caught:
        run(watched)
    assert [reference() for reference in watched] == [None, None]
    text = "".join(traceback.format_exception(caught.value))
    assert "in inner" in text and "in fails" in text and "test_memory.py" in text


def test_causes_are_let_go_too_but_not_what_was_handled_before() -> None:
    watched: list[weakref.ref[Held]] = []

    def wrapped() -> None:
        try:
            fails(watched)
        except RuntimeError as error:
            raise ValueError("of the pipeline") from error

    try:
        raise KeyError("before")
    except KeyError as before:
        with pytest.raises(ValueError, match="of the pipeline") as caught:
            with memory_returned("cpu"):
                wrapped()
        assert before.__traceback__ is not None
    assert [reference() for reference in watched] == [None, None]
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_what_is_returned_stays() -> None:
    with memory_returned("cpu"):
        kept = torch.arange(3)
    assert kept.tolist() == [0, 1, 2]
