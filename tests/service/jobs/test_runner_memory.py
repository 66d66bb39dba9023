"""What a runner holds: one pipeline with weights at a time, those without all the time."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest

from models.context import Pipeline, PipelineResult
from service.jobs.runner import Runner
from service.pipelines import find_pipeline


class Heavy:
    """Stands for a loaded pipeline; refers to itself, as networks with hooks do."""

    def __init__(self) -> None:
        self.itself = self

    def __call__(self, *_: object) -> PipelineResult:
        return PipelineResult([])


def load(device: str) -> Pipeline:
    return Heavy()


load_first = load_second = load_light = load


@pytest.fixture
def event_pipe() -> Iterator[int]:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    yield writing
    os.close(reading)
    os.close(writing)


def test_loading_a_network_frees_the_one_before(event_pipe: int) -> None:
    base = find_pipeline("mesh", "trellis")
    entries = [
        replace(base, name=name, loader=f"{__name__}:load_{name}", weights=weights)
        for name, weights in (("first", ("a",)), ("second", ("b",)), ("light", ()))
    ]
    runner = Runner("cpu", event_pipe, tuple(entries))
    first, light = (weakref.ref(runner._load(entry)) for entry in (entries[0], entries[2]))
    assert runner._load(entries[0]) is first()
    second = runner._load(entries[1])
    assert first() is None and light() is not None
    assert runner._load(entries[1]) is second
    assert runner._load(entries[2]) is light()


def test_what_has_weights_is_loaded_at_the_start_only_where_it_is_named(
    event_pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = find_pipeline("mesh", "trellis")
    entries = tuple(
        replace(base, name=name, loader=f"{__name__}:load_{name}", packages=(), weights=weights)
        for name, weights in (("first", ("a",)), ("second", ("b",)), ("light", ()))
    )
    for preload, expected in (("", {"light"}), ("second", {"light", "second"})):
        monkeypatch.setenv("MESHPRESS_PRELOAD", preload)
        runner = Runner("cpu", event_pipe, entries)
        runner._warm_up()
        assert {loader.partition("load_")[2] for loader in runner._pipelines} == expected
