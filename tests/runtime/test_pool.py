"""A runtime over several bundles, with real engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt import BudgetError, BundleError, ConfigError, Runtime
from costroute_rt.engines.bundle.pool import Pool
from tests.pools import write_pool_of

PROMPT = "a red house by a lake"


@pytest.fixture(scope="module")
def pool_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def runtime(pool_folder: Path, pool_home: Path) -> Iterator[Runtime]:
    with Runtime.open(pool=pool_folder, home=pool_home, build=True, threads=1) as opened:
        yield opened


def test_every_candidate_makes_the_image_that_its_bundle_makes(
    runtime: Runtime, pool_home: Path, tiny_bundle: Path, other_bundle: Path
) -> None:
    for bundle, pairs in (
        (tiny_bundle, {"tiny-turbo@1": "tiny-turbo@1", "tiny-base@4": "tiny-base@4"}),
        (other_bundle, {"other/tiny-turbo@1": "tiny-turbo@1", "other-base@4": "other-base@4"}),
    ):
        with Runtime.open(bundle, home=pool_home, threads=1) as single:
            for name, own in pairs.items():
                found = runtime.generate(PROMPT, candidate=name, seed=3, negative_prompt="snow")
                np.testing.assert_array_equal(found.pixels, single.generate(PROMPT, candidate=own, seed=3, negative_prompt="snow").pixels)
                assert found.settings["candidate"] == name


def test_the_best_of_all_bundles_is_chosen(runtime: Runtime) -> None:
    assert runtime.route(PROMPT).chosen.name == "other-base@8"
    assert [option.candidate.name for option in runtime.route(PROMPT).options] == [each.name for each in runtime.candidates]
    assert runtime.generate(PROMPT, seed=1).settings["family"] == "other"


def test_engines_that_two_bundles_have_exist_once(runtime: Runtime) -> None:
    names = set(runtime._resources.engines._resident)
    assert "tiny/base/guided_step" in names
    assert not any(name.startswith("tiny-2/") for name in names)
    calls = {call.engine for call in runtime._resources.family(runtime.candidates[-1]).plan(runtime.candidates[-1], (64, 64)).image_calls}
    assert runtime.candidates[-1].name == "twin@2"
    assert calls <= names


def test_a_size_that_one_family_cannot_make_leaves_the_others(runtime: Runtime) -> None:
    route = runtime.route(PROMPT, height=64, width=96)
    assert route.chosen.name == "tiny-base@8"
    assert set(route.unfit) == {"other-base@8", "other-base@4", "other-turbo@2", "other/tiny-turbo@1"}
    assert "one of the sizes of this bundle" in route.unfit["other-base@8"]
    assert runtime.generate(PROMPT, height=64, width=96, seed=1).pixels.shape[1:3] == (64, 96)
    assert runtime.plan([PROMPT], mean_ms=1e6, height=64, width=96)[0].unfit == route.unfit
    with pytest.raises(ConfigError, match="64x64, 32x32"):
        runtime.route(PROMPT, candidate="other-base@8", height=64, width=96)
    with pytest.raises(ConfigError, match="height"):
        runtime.generate(PROMPT, height=65, width=65)


def test_each_candidate_makes_its_own_bundle_s_size(runtime: Runtime) -> None:
    settings = runtime.generate(PROMPT, candidate="other-base@4", height=32, width=32, seed=1).settings
    assert (settings["height"], settings["width"]) == (32, 32)
    assert runtime.route(PROMPT, height=32, width=32).chosen.name == "other-base@8"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"licenses": ["apache-2.0"]}, "tiny-base@8"),
        ({"exclude": ["other-base@8", "tiny-base@8"]}, "tiny-base@4"),
        ({"candidates": ["twin@2"]}, "twin@2"),
    ],
)
def test_candidates_are_chosen_when_it_is_opened(pool_folder: Path, pool_home: Path, choice: dict[str, list[str]], expected: str) -> None:
    with Runtime.open(pool=pool_folder, home=pool_home, threads=1, preload=False, **choice) as opened:  # type: ignore[arg-type]
        assert opened.route(PROMPT).chosen.name == expected
        assert opened.generate(PROMPT, seed=1).route.chosen.name == expected


def test_engines_of_all_bundles_are_replaced_together(tiny_bundle: Path, other_bundle: Path, pool_home: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the other backend: pip install costroute-rt[openvino]")
    pool = write_pool_of(tmp_path / "pool", tiny_bundle, other_bundle, candidates=["tiny-turbo@1", "other/tiny-turbo@1"])
    with Runtime.open(pool=pool.root, home=pool_home, threads=1, backend="openvino", background_build=True) as opened:
        first = opened.generate(PROMPT, candidate="tiny-turbo@1", seed=1)
        assert opened._resources.upgrade is not None
        assert opened._resources.upgrade.wait(120)
        state = opened.building
        assert state is not None
        assert (state.is_over, state.done, state.total, state.problem) == (True, 6, 6, None)
        second = opened.generate(PROMPT, candidate="other/tiny-turbo@1", seed=1)
        assert first.settings["backend"] == "onnxruntime"
        used = {name.partition("/")[0] for name in (*state.rejected, *(name for name in opened._resources.engines._resident))}
        assert used == {"tiny", "other"}
        assert second.settings["backend"] == ("onnxruntime" if "other/turbo/step" in state.rejected else "openvino")


def test_candidates_without_a_bundle_are_judged_and_not_made(tiny_bundle: Path, pool_home: Path, tmp_path: Path) -> None:
    mixed = write_pool_of(tmp_path / "mixed", tiny_bundle, others={"Imagen": 900.0})
    with Runtime.open(pool=mixed.root, home=pool_home, threads=1, build=True) as opened:
        route = opened.route(PROMPT)
        assert (route.chosen.name, route.unfit) == ("tiny-base@8", {"Imagen": "it has no bundle here"})
        assert opened.route(PROMPT, candidate="Imagen").chosen.name == "Imagen"
        with pytest.raises(ConfigError, match="a candidate with a bundle"):
            opened.generate(PROMPT, candidate="Imagen")


def test_a_pool_without_any_bundle_routes(pool_home: Path, tmp_path: Path) -> None:
    means = {"Imagen": (0.9, 0.01), "Muse": (0.7, 0.01), "SD": (0.5, 0.01)}
    pool = write_pool_of(tmp_path / "pool", others={"Imagen": 900.0, "Muse": None, "SD": 100.0}, means=means, metric="score")
    assert isinstance(Pool.open(pool.root), Pool)
    with Runtime.open(pool=pool.root, home=pool_home) as opened:
        assert opened.route(PROMPT).chosen.name == "Imagen"
        tight = opened.route(PROMPT, max_ms=500)
        assert (tight.chosen.name, set(tight.unfit)) == ("SD", {"Muse"})
        assert (tight.option.ms, tight.option.resident, tight.option.memory_bytes) == (100.0, False, 0)
        with pytest.raises(BudgetError, match="SD"):
            opened.route(PROMPT, max_ms=50)
        with pytest.raises(ConfigError, match="Muse has no bundle"):
            opened.route(PROMPT, max_ms=500, candidate="Muse")
        with pytest.raises(ConfigError, match="a candidate with a bundle"):
            opened.generate(PROMPT)
        assert (opened.family, repr(opened)) == ("", "<Runtime without bundles: 3 candidates on onnxruntime cpu float32>")


def test_what_is_given_is_a_bundle_or_a_pool(tiny_bundle: Path, pool_folder: Path) -> None:
    with pytest.raises(ConfigError, match="one of them"):
        Runtime.open(tiny_bundle, pool=pool_folder)
    with pytest.raises(BundleError, match="not a pool"):
        Runtime.open(pool=tiny_bundle)


@pytest.mark.parametrize("option", ["candidates", "exclude", "licenses"])
@pytest.mark.parametrize("value", [NotImplemented, "tiny-base@4", 3, [3], {"tiny-base@4"}])
def test_a_choice_that_is_no_list_of_names_is_refused(option: str, value: Any, tiny_bundle: Path, home: Path) -> None:
    with pytest.raises(ConfigError, match=option):
        Runtime.open(tiny_bundle, home=home, **{option: value})
