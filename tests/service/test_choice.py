"""Which pipeline a request gets that names none, over every reason for and against one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.choice import Asked, Choice, Device, choose, weakest
from service.errors import InvalidOptions, PipelineUnavailable
from service.pipelines import GIB, PIPELINES, PipelineEntry

HERE = {
    name: replace(entry, weights=(), packages=())  # all they need is here
    for name, entry in {entry.name: entry for entry in PIPELINES}.items()
}
GPU = Device("cuda:0", 24 * GIB)
ONE = Asked(1)
ABSENT = ("no_such_package_anywhere",)


def take(*names: str, asked: Asked = ONE, device: Device = GPU, **changes: PipelineEntry) -> Choice:
    table = tuple(changes.get(name, HERE[name]) for name in (*names, "embedded", "sog"))
    return choose("mesh", table, asked, device)


def test_one_image_on_a_gpu_is_for_trellis() -> None:
    choice = take("trellis")
    assert choice.entry.name == "trellis"
    assert choice.passed_over == {}
    assert "1 file on cuda:0 (24 GiB)" in choice.reason


def test_without_its_weights_or_packages_the_next_is_taken_and_told_why() -> None:
    choice = take("trellis", trellis=replace(HERE["trellis"], packages=ABSENT, extra="torch"))
    assert choice.entry.name == "embedded"
    assert 'pip install "meshpress[torch]"' in choice.passed_over["trellis"]
    assert choice.to_json()["asked"] == "auto"


def test_a_card_that_is_too_small_is_said_with_both_sizes() -> None:
    choice = take("trellis", device=Device("cuda:0", 4 * GIB))
    assert choice.entry.name == "embedded"
    assert choice.passed_over["trellis"].startswith("it needs 7 GiB of GPU memory")
    assert "cuda:0 (4 GiB)" in choice.passed_over["trellis"]


def test_memory_nobody_knows_does_not_count_against_a_gpu() -> None:
    assert take("trellis", device=Device("cuda:0")).entry.name == "trellis"


def test_on_a_cpu_what_is_slow_waits_to_be_named() -> None:
    choice = take("trellis", device=Device())
    assert choice.entry.name == "embedded"
    assert "pipeline=trellis" in choice.passed_over["trellis"]


def test_unless_nothing_else_can_do_it() -> None:
    asked = Asked(1, frozenset({"formats"}), ("sog",))
    choice = take("trellis", asked=asked, device=Device())
    assert choice.entry.name == "trellis" and "many minutes" in choice.reason
    assert choice.passed_over == {"embedded": "it makes no sog"}
    several = replace(HERE["trellis"], name="reconviagen", best_with=(2, 16))
    choice = choose("mesh", (HERE["embedded"], several, HERE["sog"]), asked, GPU)
    assert choice.entry is several and "it is for 2 to 16 files" in choice.reason


def test_several_images_are_for_the_one_made_for_them() -> None:
    several = replace(HERE["trellis"], name="reconviagen", best_with=(2, 16))
    table = (HERE["embedded"], HERE["trellis"], several, HERE["sog"])
    assert choose("mesh", table, Asked(1), GPU).entry.name == "trellis"
    assert choose("mesh", table, Asked(2), GPU).entry.name == "reconviagen"
    single = replace(HERE["trellis"], inputs=(1, 1))
    table = (HERE["embedded"], single)
    assert choose("mesh", table, Asked(2), GPU).entry.name == "embedded"


def test_an_option_that_one_pipeline_has_leads_to_it() -> None:
    assert take("trellis", asked=Asked(1, frozenset({"azimuth"}))).entry.name == "embedded"
    assert take("trellis", asked=Asked(1, frozenset({"mixing"}))).entry.name == "trellis"
    assert take("trellis", asked=Asked(1, frozenset({"steps", "faces"}))).entry.name == "trellis"


def test_an_option_nobody_has_is_left_to_who_checks_them() -> None:
    assert take("trellis", asked=Asked(1, frozenset({"fases"}), ("gbl",))).entry.name == "trellis"


def test_wishes_that_no_pipeline_joins_are_refused_with_each_reason() -> None:
    asked = Asked(1, frozenset({"azimuth", "formats"}), ("sog",))
    with pytest.raises(InvalidOptions) as caught:
        take("trellis", asked=asked)
    assert "trellis: it has no option azimuth; embedded: it makes no sog" in caught.value.message
    fields = [fault["field"] for fault in caught.value.details["errors"]]
    assert fields == ["formats", "azimuth"]


def test_what_could_do_it_and_lacks_something_is_named_with_the_command() -> None:
    lacking = replace(HERE["trellis"], packages=ABSENT, extra="torch")
    with pytest.raises(PipelineUnavailable) as caught:
        take("trellis", trellis=lacking, asked=Asked(1, frozenset({"formats"}), ("sog",)))
    assert caught.value.message.startswith("formats=sog is for trellis, which cannot run here.")
    assert caught.value.details["command"] == 'pip install "meshpress[torch]"'


def test_the_weakest_worker_decides() -> None:
    small, large = Device("cuda:0", 8 * GIB), Device("cuda:1", 80 * GIB)
    assert weakest([large, small]) == small
    assert weakest([]) == Device()
    assert weakest([large, Device()]).name == "cpu"
