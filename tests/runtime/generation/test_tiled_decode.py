"""Images larger than usual are decoded in tiles: what is run, what it costs, what is said, and that the image is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from costroute_rt import Runtime
from costroute_rt.call import Call, Stage
from costroute_rt.cost.cost_model import CostModel
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.family.family import EngineSizes, Family
from costroute_rt.family.memory import RESERVE_BYTES, MemoryLimit
from costroute_rt.family.resources import Resources
from tests.runtime.fakes import FakeDevice, open_fake_runtime

DECODE, PROMPT = "tiny/vae/decode", "a red house"
LARGE = {"height": 128, "width": 128}
TILES = Call(DECODE, Stage.DECODE, times=4, tiles=4, area=25 / 16)
"""Of 8 x 8 cells: twice two tiles of 5 x 5, where the usual latent has 4 x 4."""


def decode_call(family: Family, size: tuple[int, int], count: int = 1) -> Call:
    return family.calls(family.pool[0], size, count)[-1]


def whole(resources: Resources) -> None:
    """Decode images of any size in one from now on."""
    family = replace(resources.main_family, whole_area=100.0)
    resources.families[family.name] = family  # type: ignore[index]


def test_images_of_more_than_twice_the_usual_area_have_a_call_for_each_tile(bundle: Bundle) -> None:
    family = Family.open(bundle)
    assert decode_call(family, (64, 128)) == Call(DECODE, Stage.DECODE, area=2.0)
    assert decode_call(family, (128, 128)) == TILES
    assert decode_call(family, (128, 128), count=3) == replace(TILES, times=12)
    assert decode_call(replace(family, whole_area=1.0), (64, 96)).tiles == 2


def test_an_engine_built_for_the_size_decodes_in_one(bundle: Bundle) -> None:
    sized = Family.open(bundle).with_sizes(EngineSizes(frozenset({(128, 128)})))
    assert decode_call(sized, (128, 128)) == Call(f"{DECODE}@128x128", Stage.DECODE)


def test_engines_for_listed_sizes_get_no_tile_below_the_least(bundle: Bundle) -> None:
    sizes = ((64, 64), (80, 80), (128, 128))
    listed = Family.open(replace(bundle, image=replace(bundle.image, any_size=False, sizes=sizes)))
    assert decode_call(listed, (128, 128)) == TILES
    limited = replace(listed, whole_area=1.0)
    tiling = limited.plan(limited.pool[0], (80, 80)).tiling
    assert tiling is not None
    assert (tiling.height, tiling.tops) == (4, (0, 1))  # tiles of 3 would do


@pytest.mark.parametrize("count", [1, 2])
def test_the_image_is_the_same_and_its_cost_is_that_of_the_tiles(bundle: Bundle, count: int) -> None:
    device, other = open_fake_runtime(bundle), open_fake_runtime(bundle)
    whole(other.resources)
    before = device.engines[DECODE].calls
    result = device.runtime.generate(PROMPT, seed=1, count=count, candidate="base@4", **LARGE)
    assert device.engines[DECODE].calls - before == 4 * count
    assert device.engines[DECODE].fed["latent"].shape == (1, 4, 5, 5)
    cost = result.route.option.cost
    assert (cost.decode_ms, cost.swap_ms) == pytest.approx((4 * count * 10 * 25 / 16, 0))
    expected = other.runtime.generate(PROMPT, seed=1, count=count, candidate="base@4", **LARGE)
    assert np.abs(result.pixels.astype(int) - expected.pixels).max() <= 1
    assert result.notes == ("decoded in 4 tiles of 80x80 pixels, because the image is larger than usual",)
    assert expected.notes == ()
    assert result.settings.keys() == expected.settings.keys()


def test_the_time_of_tiles_is_learned(device: FakeDevice) -> None:
    for _ in range(20):
        result = device.runtime.generate(PROMPT, seed=1, candidate="turbo@2", **LARGE)
    assert result.timings.decode_ms == pytest.approx(40)  # the fake takes as long for tiles as for the usual image
    assert result.route.option.cost.decode_ms == pytest.approx(40, rel=0.05)


def test_a_limit_of_memory_means_tiles_of_the_usual_size_at_most(bundle: Bundle) -> None:
    def limit(budget: int) -> MemoryLimit:
        return MemoryLimit(max_bytes=RESERVE_BYTES + budget, base_bytes=0, size_of=lambda _: 100, peak_of=lambda _: 100)

    device = open_fake_runtime(bundle, limit=limit(700))
    resources = device.resources
    calls = resources.main_family.calls(resources.pool[0], (128, 128))
    decoding = [call for call in calls if call.stage is Stage.DECODE]
    assert (decoding[0].tiles, decoding[0].area) == (9, 1.0)
    assert resources.engines.limit is not None
    assert resources.engines.limit.extra_bytes(decoding, lambda _: 0) == 0
    result = device.runtime.generate(PROMPT, seed=1, candidate="turbo@1", **LARGE)
    assert "9 tiles of 64x64 pixels" in result.notes[0]
    assert device.runtime.generate(PROMPT, seed=1, candidate="turbo@1").notes == ()


def test_a_probe_of_the_device_runs_no_decoder_of_tiles(device: FakeDevice) -> None:
    costs: CostModel = device.resources.costs
    step = Call("tiny/turbo/step", Stage.DENOISE)
    device.clock.pass_ms(60_000)
    assert costs.find_probe([[step, Call(DECODE, Stage.DECODE, times=2, area=1.0)]], 1e6) is not None
    found = costs.find_probe([[step, TILES]], 1e6)
    assert found is not None
    assert found.engine == step.engine
    assert costs.find_probe([[TILES]], 1e6) is None


def test_tiles_on_real_engines_give_the_same_image(tiny_bundle: Path, tmp_path: Path) -> None:
    with Runtime.open(tiny_bundle, home=tmp_path, threads=1, build=True) as runtime:
        result = runtime.generate(PROMPT, seed=1, height=128, width=112)
        whole(runtime._resources)
        expected = runtime.generate(PROMPT, seed=1, height=128, width=112)
    assert (len(result.notes), len(expected.notes)) == (1, 0)
    with Runtime.open(tiny_bundle, home=tmp_path, threads=1, max_memory_bytes=4 << 30) as runtime:
        smaller = runtime.generate(PROMPT, seed=1, height=128, width=112)
    assert "6 tiles of 64x64 pixels" in smaller.notes[0]
    for each in (result, smaller):
        assert each.pixels.shape == (1, 128, 112, 3)
        assert np.abs(each.pixels.astype(int) - expected.pixels).max() <= 1
