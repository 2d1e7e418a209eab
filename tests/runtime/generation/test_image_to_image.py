"""Image to image and inpainting on fake engines: what is run, what it costs, and which pixels stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from costroute_rt.call import Stage
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import ConfigError, EngineError, Reason
from costroute_rt.result import Result
from costroute_rt.sampling.image_run import noise_weights
from costroute_rt.sampling.noise import NoiseStream
from costroute_rt.source_image import SourceImage
from tests.runtime.fakes import LOAD_MS, BoxedEngine, FakeDevice, encode_image, open_fake_runtime

ENCODE, STEP = "tiny/vae/encode", "tiny/base/guided_step"
CELLS = np.random.default_rng(2).integers(90, 170, (4, 4, 3), dtype=np.uint8)
IMAGE = CELLS.repeat(16, axis=0).repeat(16, axis=1)
"""uint8[64, 64, 3], even in each cell of the latent."""
TOP = np.zeros((64, 64), np.bool_)
TOP[:32] = True


@pytest.fixture
def device(bundle: Bundle) -> FakeDevice:
    return open_fake_runtime(bundle, image_encoders=[ENCODE])


def ask(device: FakeDevice, candidate: str | None = "base@8", **how: Any) -> Result:
    return device.runtime.generate("a red house", **{"candidate": candidate, "seed": 1, "init_image": IMAGE, **how})


def first_latent(device: FakeDevice) -> list[np.ndarray]:
    """Fills the list with the latents that the denoiser is given, one for each row."""
    seen: list[np.ndarray] = []
    engine, run = device.engines[STEP], device.engines[STEP].run
    engine.run = lambda feeds: (seen.append(feeds["latent"]), run(feeds))[1]  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize(("strength", "steps"), [(0.6, 4), (0.125, 1), (1.0, 8)])
def test_the_share_of_the_steps_runs_from_the_noised_image(device: FakeDevice, strength: float, steps: int) -> None:
    seen = first_latent(device)
    result = ask(device, strength=strength)
    assert len(seen) == len(result.timings.denoise_ms) == result.settings["num_inference_steps"] == steps
    family = device.resources.main_family
    plan = family.plan(result.route.chosen, (64, 64), strength=strength)
    alpha, sigma = noise_weights(plan.scheduler, float(plan.table.noise_levels[0]))
    noise = NoiseStream([1], plan.latent_shape).draw()
    np.testing.assert_allclose(seen[0], alpha * encode_image({"pixels": IMAGE[None]})["latent"] + sigma * noise, rtol=1e-5, atol=1e-6)
    assert sigma == family.plan(result.route.chosen, (64, 64)).table.noise_levels[8 - steps]


def test_the_prediction_is_that_of_the_shorter_run_with_the_encoder(device: FakeDevice) -> None:
    whole, changed = (
        device.runtime.route("a red house", candidate="base@8"),
        device.runtime.generate("a red house", candidate="base@8", seed=1, init_image=IMAGE, strength=0.5),
    )
    cost = changed.route.option.cost
    assert (cost.encode_ms, cost.denoise_ms) == pytest.approx((6, 4 * 50))
    assert (whole.option.cost.encode_ms, whole.option.cost.denoise_ms) == pytest.approx((0, 8 * 50))
    assert changed.timings.encode_ms == pytest.approx(6)
    assert changed.predicted_ms == pytest.approx(changed.actual_ms + 1)
    assert changed.route.to_json()["options"][0]["stages"]["encode_ms"] == 6


def test_several_images_need_one_encoding_and_have_their_own_noise(device: FakeDevice) -> None:
    before = device.engines[ENCODE].calls
    result = ask(device, count=2)
    assert device.engines[ENCODE].calls == before + 1
    assert (result.pixels[0] != result.pixels[1]).any()
    np.testing.assert_array_equal(ask(device, seed=2).pixels[0], result.pixels[1])


def test_pixels_outside_the_mask_stay_and_those_inside_change(device: FakeDevice) -> None:
    result = ask(device, mask=TOP)
    np.testing.assert_array_equal(result.pixels[0, 32:], IMAGE[32:])
    assert (result.pixels[0, :32] != IMAGE[:32]).mean() > 0.5
    assert result.settings["strength"] == 1.0


def test_after_each_row_the_image_is_put_back_outside_the_mask_at_the_noise_of_the_next_row(device: FakeDevice) -> None:
    seen = first_latent(device)
    result = ask(device, mask=TOP, strength=0.6)
    plan = device.resources.main_family.plan(result.route.chosen, (64, 64), strength=0.6)
    noise, clean = NoiseStream([1], plan.latent_shape).draw(), encode_image({"pixels": IMAGE[None]})["latent"]
    for row, latent in enumerate(seen):
        alpha, sigma = noise_weights(plan.scheduler, float(plan.table.noise_levels[row]))
        np.testing.assert_allclose(latent[:, :, 2:], (alpha * clean + sigma * noise)[:, :, 2:], rtol=1e-5, atol=1e-6)
    decoded = device.engines["tiny/vae/decode"].fed["latent"]
    np.testing.assert_array_equal(decoded[:, :, 2:], clean[:, :, 2:])
    assert (decoded[:, :, :2] != clean[:, :, :2]).all(axis=1).all()


def test_a_mask_with_full_strength_begins_with_noise_alone(device: FakeDevice) -> None:
    seen = first_latent(device)
    ask(device, mask=TOP)
    shape = device.resources.main_family.plan(device.resources.pool[3], (64, 64), strength=1.0).latent_shape
    np.testing.assert_array_equal(seen[0], NoiseStream([1], shape).draw())


def test_a_mask_that_is_black_gives_the_image_and_one_that_is_white_changes_nothing(device: FakeDevice) -> None:
    np.testing.assert_array_equal(ask(device, mask=np.zeros((8, 8), np.bool_)).pixels[0], IMAGE)
    white = ask(device, mask=np.ones((8, 8), np.bool_), strength=0.5)
    np.testing.assert_array_equal(white.pixels, ask(device, strength=0.5).pixels)


def test_a_late_run_leaves_out_rows_and_still_restores_the_image(device: FakeDevice) -> None:
    device.slowdown[STEP] = 1.45
    result = ask(device, mask=TOP, strength=0.9, max_ms=500)
    assert result.replanned
    np.testing.assert_array_equal(result.pixels[0, 32:], IMAGE[32:])


def test_candidates_without_a_step_at_this_strength_are_left_out(device: FakeDevice) -> None:
    route = device.runtime.route("a red house", init_image=IMAGE, strength=0.3)
    assert [option.candidate.name for option in route.options] == ["base@4", "base@8"]
    assert "strength is 0.3: expected 1 or more, for one of 1 steps" in str(route.to_json())
    with pytest.raises(ConfigError, match=r"strength is 0.1: expected 0.125 or more, for one of 8 steps of base@8"):
        device.runtime.route("a red house", init_image=IMAGE, strength=0.1)
    with pytest.raises(ConfigError, match=r"strength is 0.8: expected 1 or more, for one of 1 steps of turbo@1"):
        ask(device, "turbo@1")


def test_the_image_is_fitted_to_the_size_of_the_request(device: FakeDevice) -> None:
    result = ask(device, height=64, width=96, mask=np.zeros((2, 2), np.bool_))
    np.testing.assert_array_equal(result.pixels[0], SourceImage.of("init_image", IMAGE).fit(64, 96))


def test_a_batch_is_planned_for_the_shorter_runs(device: FakeDevice) -> None:
    routes = device.runtime.plan(["a lake"] * 3, total_ms=3 * 350, init_image=IMAGE, strength=0.5)
    assert {route.chosen.name for route in routes} == {"base@8"}
    with pytest.raises(ConfigError, match="strength"):
        device.runtime.plan(["a lake"], total_ms=100, strength=0.5)


def test_values_in_the_memory_of_a_device_are_moved(bundle: Bundle) -> None:
    device = open_fake_runtime(bundle, image_encoders=[ENCODE])
    expected = ask(device, mask=TOP).pixels
    for name, engine in list(device.engines.items()):
        boxed = BoxedEngine(**{field: getattr(engine, field) for field in ("name", "clock", "ms", "fail", "inputs", "functions")})
        device.resources.engines.replace({name: boxed})  # type: ignore[dict-item]
    np.testing.assert_array_equal(ask(device, mask=TOP).pixels, expected)


def test_the_engine_is_loaded_before_the_first_request_or_within_it(bundle: Bundle) -> None:
    assert ENCODE in open_fake_runtime(bundle, image_encoders=[ENCODE]).engines
    device = open_fake_runtime(bundle, image_encoders=[ENCODE], preload=False)
    result = ask(device)
    assert result.route.option.cost.swap_ms == pytest.approx(result.timings.swap_ms) == pytest.approx(5 * LOAD_MS)


def test_without_the_engine_the_error_says_how_to_build_it_and_other_images_are_made(bundle: Bundle) -> None:
    device = open_fake_runtime(bundle)
    assert ENCODE not in device.engines
    with pytest.raises(EngineError, match="no engine encodes initial images; build it") as error:
        ask(device)
    assert (error.value.reason, error.value.engine) == (Reason.IMAGES_MISSING, ENCODE)
    assert ask(device, init_image=None).settings["init_image_sha256"] is None


def test_a_family_without_such_a_graph_refuses_images(bundle: Bundle) -> None:
    vae = bundle.components["vae"]
    without = replace(bundle, components={**bundle.components, "vae": replace(vae, graphs={"decode": vae.graphs["decode"]})})
    with pytest.raises(ConfigError, match=r"init_image is .*: expected None: tiny cannot begin with an image"):
        ask(open_fake_runtime(without))


def test_the_settings_tell_which_image_it_was(device: FakeDevice) -> None:
    settings = ask(device, mask=TOP, strength=0.7).settings
    assert settings["strength"] == 0.7
    assert settings["init_image_sha256"] == SourceImage.of("init_image", IMAGE).sha256
    assert settings["mask_sha256"] == SourceImage.of("mask", TOP).sha256


@pytest.mark.parametrize("strength", [0.125, 0.5, 1.0])
def test_guidance_that_ends_ends_after_its_share_of_the_steps_that_run(bundle: Bundle, strength: float) -> None:
    device = open_fake_runtime(bundle, image_encoders=[ENCODE], preload=False)
    candidate = replace(device.resources.pool[3], guidance_end=0.5)
    plan = device.resources.main_family.plan(candidate, (64, 64), strength=strength)
    guided = int((np.asarray(plan.table.guidance) > 1).sum())
    times = {call.engine: call.times for call in plan.image_calls if call.stage is Stage.DENOISE}
    assert times == {name: count for name, count in ((STEP, guided), ("tiny/base/step", len(plan.table) - guided)) if count}
    assert guided == max(round(8 * strength) // 2, 1)
