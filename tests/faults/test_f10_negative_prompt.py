"""F10: a negative prompt is used where a guided candidate fits, and otherwise the route, the result and the file say that it is not."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from costroute_rt import Result, Runtime, read_settings
from costroute_rt.engines.bundle.bundle import Bundle
from tests.patchwork_bundle import write_patchwork_bundle
from tests.runtime.fakes import FakeDevice, open_fake_runtime

MIXED = (
    ("turbo@1", "turbo", 1, 1.0, 0.5),
    ("base@4", "base", 4, 3.0, 0.8),
    ("base@8", "base", 8, 3.0, 0.9),
    ("turbo@4", "turbo", 4, 1.0, 0.95),
)
"""The best candidate of all is not guided."""


@pytest.fixture
def make(tiny_bundle: Path) -> Callable[..., FakeDevice]:
    return lambda pool=MIXED: open_fake_runtime(Bundle.open(tiny_bundle), pool=pool)


@pytest.mark.parametrize(
    ("options", "without", "with_negative"),
    [
        ({}, "turbo@4", "base@8"),
        ({"max_ms": 300}, "turbo@4", "base@4"),
        ({"max_ms": 100}, "turbo@4", "turbo@4"),
        ({"max_ms": 40}, "turbo@1", "turbo@1"),
        ({"max_ms": 5, "or_fastest": True}, "turbo@1", "turbo@1"),
        ({"tolerance": 0.2}, "turbo@4", "base@4"),
        ({"lam": 0.01}, "turbo@1", "base@4"),
        ({"candidate": "turbo@1"}, "turbo@1", "turbo@1"),
        ({"candidate": "base@4"}, "base@4", "base@4"),
    ],
)
def test_f10_guided_candidates_are_preferred_where_they_fit(
    make: Callable[..., FakeDevice], options: dict[str, Any], without: str, with_negative: str
) -> None:
    runtime = make().runtime
    assert runtime.route("a lake", **options).chosen.name == without
    route = runtime.route("a lake", negative_prompt="snow", **options)
    assert route.chosen.name == with_negative
    is_not_used = route.reason.endswith((f"{route.chosen.name} cannot use the negative prompt", "none of them can use the negative prompt"))
    assert is_not_used == (not route.chosen.is_guided)
    assert ("candidates that can use the negative prompt" in route.reason) == (route.chosen.is_guided and len(route.options) > 1)


@pytest.mark.parametrize("negative_prompt", [None, "", "  ", "\n"])
def test_f10_a_blank_negative_prompt_changes_nothing(make: Callable[..., FakeDevice], negative_prompt: str | None) -> None:
    result = make().runtime.generate("a lake", negative_prompt=negative_prompt, seed=7)
    assert result.route.chosen.name == "turbo@4"
    assert "negative" not in result.route.reason
    assert result.notes == ()
    assert result.settings["negative_prompt"] is None


def texts_of(result: Result) -> list[str]:
    """The form of the web UI, from files of every format."""
    found = []
    for format in ("png", "jpeg", "webp"):
        with Image.open(io.BytesIO(result.image_bytes(format))) as image:
            comment = image.getexif().get_ifd(0x8769).get(0x9286, b"")[8:].decode("utf-16-be")
            found.append(image.info.get("parameters") or comment)
    return found


def test_f10_a_file_says_whether_the_negative_prompt_was_used(make: Callable[..., FakeDevice]) -> None:
    runtime = make().runtime
    used = runtime.generate("a lake", negative_prompt="snow", seed=7)
    unused = runtime.generate("a lake", negative_prompt="snow", seed=7, candidate="turbo@4")
    assert used.notes == ()
    assert unused.notes == ("the negative prompt was not used: turbo@4 has no classifier-free guidance",)
    assert unused.to_json()["notes"] == list(unused.notes)
    assert (used.settings["negative_prompt"], unused.settings["negative_prompt"]) == ("snow", None)
    assert (used.settings["ignored"], unused.settings["ignored"]) == ({}, {"negative_prompt": "snow"})
    assert (used.settings["guidance_scale"], unused.settings["guidance_scale"]) == (3.0, None)
    for format in ("png", "jpeg", "webp"):
        assert read_settings(unused.image_bytes(format))["negative_prompt"] is None
    assert all("Negative prompt: snow" in text and "CFG scale: 3.0" in text for text in texts_of(used))
    assert all("Negative" not in text and "CFG scale: 1.0" in text for text in texts_of(unused))


def test_f10_what_is_recorded_as_used_changes_the_pixels(make: Callable[..., FakeDevice]) -> None:
    runtime = make().runtime
    for options in ({}, {"max_ms": 300}, {"max_ms": 100}, {"candidate": "turbo@1"}):
        plain, other = (runtime.generate("a lake", negative_prompt=text, seed=7, **options) for text in ("snow", "fog"))
        assert (plain.pixels != other.pixels).any() == (plain.settings["negative_prompt"] is not None)


def test_f10_embedded_guidance_cannot_use_a_negative_prompt(tmp_path: Path) -> None:
    bundle = write_patchwork_bundle(tmp_path / "patchwork")
    with Runtime.open(bundle.root, home=tmp_path / "home", build=True) as runtime:
        embedded = next(each for each in runtime.candidates if bundle.components[each.denoiser].guidance == "embedded")
        assert not embedded.is_guided
        assert runtime.route("a red house", negative_prompt="night").chosen.is_guided
        result = runtime.generate("a red house", negative_prompt="night", candidate=embedded.name, seed=7)
    assert result.route.reason == f"the only candidate considered; {embedded.name} cannot use the negative prompt"
    assert result.notes == (f"the negative prompt was not used: {embedded.name} has no classifier-free guidance",)
    assert result.settings["negative_prompt"] is None
    assert result.settings["guidance_scale"] == embedded.guidance_scale > 1
    assert result.settings["provider"] == "cpu"


@pytest.mark.parametrize(("total_ms", "guided"), [(400, 0), (1000, 3), (2300, 10), (9000, 10)])
def test_f10_a_plan_guides_as_many_prompts_as_possible(make: Callable[..., FakeDevice], total_ms: float, guided: int) -> None:
    runtime = make().runtime
    assert not any(route.chosen.is_guided for route in runtime.plan(["a lake"] * 10, total_ms=total_ms))
    routes = runtime.plan(["a lake"] * 10, total_ms=total_ms, negative_prompt="snow")
    assert sum(route.option.ms for route in routes) <= total_ms
    assert sum(route.chosen.is_guided for route in routes) == guided
    for route in routes:
        assert ("cannot use the negative prompt" in route.reason) == (not route.chosen.is_guided)
        assert route.lam < 1


def test_f10_a_plan_of_a_pool_without_guidance(make: Callable[..., FakeDevice]) -> None:
    runtime = make((("turbo@1", "turbo", 1, 1.0, 0.5), ("turbo@4", "turbo", 4, 1.0, 0.9))).runtime
    routes = runtime.plan(["a lake"] * 3, total_ms=9000, negative_prompt="snow")
    assert {route.chosen.name for route in routes} == {"turbo@4"}
    assert all(route.reason.endswith("; turbo@4 cannot use the negative prompt") for route in routes)
    cheap = runtime.plan(["a lake"] * 3, total_ms=1, negative_prompt="snow", or_fastest=True)
    assert all(route.reason.endswith("; turbo@1 cannot use the negative prompt") for route in cheap)


def test_f10_the_steps_of_each_image_are_those_that_ran(make: Callable[..., FakeDevice]) -> None:
    device = make()
    device.slowdown[""] = 1.5
    late = device.runtime.generate("a lake", candidate="base@4", seed=7, count=2, max_ms=620)
    assert late.replanned == sum(late.skipped) > 0
    for index in range(2):
        settings = read_settings(late.png_bytes(index))
        assert (settings["seed"], settings["replanned"]) == (7 + index, late.skipped[index])
        assert settings["num_inference_steps"] == late.steps[index] == 4 - late.skipped[index]
        with Image.open(io.BytesIO(late.png_bytes(index))) as image:
            assert f"Steps: {late.steps[index]}, " in image.info["parameters"]
    assert sum(late.steps) == len(late.timings.denoise_ms)


def test_f10_every_setting_is_what_was_used(make: Callable[..., FakeDevice]) -> None:
    result = make().runtime.generate("word " * 60, seed=7, height=96, width=32, count=2, max_ms=9000, negative_prompt="snow")
    assert result.settings["truncated"] is True
    assert "its end was left out" in result.notes[0]
    assert (result.settings["height"], result.settings["width"]) == result.pixels.shape[1:3] == (96, 32)
    expected = {"candidate": "base@8", "denoiser": "base", "num_inference_steps": 8, "replanned": 0, "count": 2, "max_ms": 9000}
    assert {name: result.settings[name] for name in expected} == expected
    assert result.image_settings(0) == dict(result.settings)
    assert result.image_settings(1) == {**result.settings, "seed": 8}
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(result.png_bytes(1)))), result.pixels[1])


class BuildsForAnotherBackend:
    """A background build that has finished nothing yet."""

    def status(self) -> Any:
        return SimpleNamespace(backend="other")

    def take(self) -> dict[str, Any]:
        return {}

    def expected_costs(self, names: Any) -> None:
        return None


def test_f10_versions_are_those_of_libraries_that_ran(make: Callable[..., FakeDevice]) -> None:
    versions = {"costroute-rt": "1", "fake": "2", "other": "3", "numpy": "4"}
    resources = replace(make().resources, versions=versions, upgrade=BuildsForAnotherBackend())
    settings = Runtime(resources).generate("a lake", seed=7).settings
    assert (settings["backend"], settings["versions"]) == ("fake", {"costroute-rt": "1", "fake": "2", "numpy": "4"})
