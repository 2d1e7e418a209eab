"""Names of engines: parsing and formatting."""

from __future__ import annotations

from pathlib import Path

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.name import EngineName, find_graph
from costroute_rt.error import ConfigError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("tiny/base/guided_step", EngineName("tiny", "base", "guided_step")),
        ("tiny/base/guided_step@512x768", EngineName("tiny", "base", "guided_step", (512, 768))),
        ("tiny/base@2x3/step@large", EngineName("tiny", "base@2x3", "step@large")),
    ],
)
def test_a_name_is_parsed_and_printed(text: str, name: EngineName) -> None:
    assert EngineName.parse(text) == name
    assert str(name) == text


@pytest.mark.parametrize("text", ["", "base/step", "/base/step", "tiny//step", "tiny/base/"])
def test_an_invalid_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="such as postcard/base/guided_step"):
        EngineName.parse(text)


def test_only_graphs_of_the_bundle_are_found(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle, verify=False)
    assert find_graph(bundle, "tiny/base/step@64x96").size == (64, 96)
    for name in ("other/base/step", "tiny/base/refine", "tiny/none/step"):
        with pytest.raises(ConfigError, match=r"one of .*tiny/base/guided_step"):
            find_graph(bundle, name)
