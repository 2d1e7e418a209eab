"""The runtime as an application sees it, on fake engines."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.cost.correction import MARGIN_HIGH
from costroute_rt.engines.backends.key import EngineKey
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import BudgetError, CancelledError, ConfigError, EngineError, OutputError, PromptError, Reason
from costroute_rt.judgement import Judgement
from costroute_rt.png import read_settings
from costroute_rt.result import Result, StepEvent
from costroute_rt.routing.prompt_encoder import TextStates
from tests.runtime.fakes import POOL, FakeDevice

STOCHASTIC = {"_class_name": "EulerAncestralDiscreteScheduler", "prediction_type": "epsilon", "timestep_spacing": "trailing"}


def test_a_result_holds_images_times_and_the_decision(device: FakeDevice) -> None:
    result = device.runtime.generate("a red house", max_ms=300, seed=7)
    assert result.route.chosen.name == "base@4"
    assert (result.pixels.shape, result.pixels.dtype) == ((1, 64, 64, 3), np.uint8)
    assert result.image.size == result.images[0].size == (64, 64)
    assert result.timings.denoise_ms == pytest.approx([50] * 4)
    assert (result.timings.text_ms, result.timings.decode_ms, result.timings.swap_ms) == pytest.approx((6, 10, 0))
    assert result.actual_ms == pytest.approx(216)
    assert result.predicted_ms == pytest.approx(217)
    assert result.met is True
    assert (result.replanned, result.truncated, result.seed) == (0, False, 7)


def test_a_result_is_plain_data(device: FakeDevice) -> None:
    result = device.runtime.generate("a red house", max_ms=300, seed=7)
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert data["actual_ms"] == pytest.approx(216)
    assert data["timings"]["denoise_ms"] == [50.0] * 4
    assert data["settings"]["candidate"] == data["route"]["chosen"] == "base@4"


def test_without_a_budget_nothing_is_met_or_missed(device: FakeDevice) -> None:
    result = device.runtime.generate("a red house", seed=7)
    assert result.route.chosen.name == "base@8"
    assert result.met is None


def test_the_same_seed_gives_the_same_pixels(device: FakeDevice) -> None:
    first, again, other = (device.runtime.generate("a red house", seed=seed).pixels for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_prompt_and_the_negative_prompt_matter_to_guided_candidates(device: FakeDevice) -> None:
    def make(candidate: str, prompt: str = "a red house", negative_prompt: str = "") -> Any:
        return device.runtime.generate(prompt, negative_prompt=negative_prompt, candidate=candidate, seed=7).pixels

    assert (make("base@4") != make("base@4", prompt="a starry night")).any()
    assert (make("base@4") != make("base@4", negative_prompt="snow")).any()
    np.testing.assert_array_equal(make("turbo@2"), make("turbo@2", negative_prompt="snow"))


@pytest.mark.parametrize("scheduler", [None, STOCHASTIC], ids=["flow", "stochastic"])
def test_three_images_are_those_of_three_seeds(open_device: Callable[..., FakeDevice], scheduler: Any) -> None:
    runtime = open_device(scheduler=scheduler).runtime
    together = runtime.generate("a red house", seed=7, count=3)
    for index in range(3):
        np.testing.assert_array_equal(together.pixels[index], runtime.generate("a red house", seed=7 + index).pixels[0])
    assert len(together.timings.denoise_ms) == 24
    assert len(together.images) == 3


def test_a_random_seed_is_reported_and_can_be_used_again(device: FakeDevice) -> None:
    first, second = device.runtime.generate("a red house"), device.runtime.generate("a red house")
    assert first.seed != second.seed
    assert 0 <= first.seed < 2**32
    np.testing.assert_array_equal(first.pixels, device.runtime.generate("a red house", seed=first.seed).pixels)


def test_sizes_follow_the_request(device: FakeDevice) -> None:
    result = device.runtime.generate("a red house", seed=7, height=96, width=32)
    assert result.pixels.shape == (1, 96, 32, 3)
    assert result.predicted_ms < 415  # fewer pixels than the default
    with pytest.raises(ConfigError, match="multiple of 16"):
        device.runtime.generate("a red house", height=70)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"prompt": ""}, PromptError),
        ({"prompt": "a\0b"}, PromptError),
        ({"negative_prompt": "\x1b[0m"}, PromptError),
        ({"max_ms": 0}, ConfigError),
        ({"max_ms": -5}, ConfigError),
        ({"max_ms": float("nan")}, ConfigError),
        ({"max_ms": 1}, BudgetError),
        ({"seed": -1}, ConfigError),
        ({"seed": 2**63}, ConfigError),
        ({"count": 0}, ConfigError),
        ({"candidate": "no-such"}, ConfigError),
        ({"candidate": "base@8", "max_ms": 100}, BudgetError),
    ],
)
def test_what_cannot_be_done_is_refused_and_does_no_harm(device: FakeDevice, arguments: dict[str, Any], error: type[Exception]) -> None:
    calls = device.engines["tiny/base/guided_step"].calls
    with pytest.raises(error):
        device.runtime.generate(**{"prompt": "a red house", **arguments})
    assert device.engines["tiny/base/guided_step"].calls == calls
    assert device.runtime.generate("a red house", seed=1).pixels.any()


def test_an_unknown_candidate_is_told_the_names(device: FakeDevice) -> None:
    with pytest.raises(ConfigError, match="turbo@1, turbo@2, base@4, base@8"):
        device.runtime.route("a red house", candidate="turbo")


def test_long_prompts_and_emoji_make_an_image(device: FakeDevice) -> None:
    assert device.runtime.generate("a red house " * 30, seed=1).truncated
    assert not device.runtime.generate("🏡 by a lake", seed=1).truncated


def test_a_forced_candidate_is_the_only_one_weighed(device: FakeDevice) -> None:
    result = device.runtime.generate("a red house", candidate="turbo@2", max_ms=1000, seed=1)
    assert [option.candidate.name for option in result.route.options] == ["turbo@2"]
    assert result.met


def test_or_fastest_runs_in_full_and_reports_the_miss(device: FakeDevice) -> None:
    result = device.runtime.generate("a red house", max_ms=20, or_fastest=True, seed=1)
    assert result.route.chosen.name == "turbo@1"
    assert result.met is False
    forced = device.runtime.generate("a red house", max_ms=100, candidate="base@8", or_fastest=True, seed=1)
    assert (forced.met, forced.replanned, len(forced.timings.denoise_ms)) == (False, 0, 8)


def test_a_late_run_is_replanned_and_meets_its_budget(device: FakeDevice) -> None:
    device.slowdown["tiny/base/guided_step"] = 1.5
    result = device.runtime.generate("a red house", max_ms=430, seed=1)
    assert result.route.chosen.name == "base@8"
    assert result.replanned == 8 - len(result.timings.denoise_ms) > 0
    assert result.met
    assert result.settings["replanned"] == result.replanned


def test_a_run_that_was_shortened_to_be_in_time_counts_as_late(device: FakeDevice) -> None:
    """The margin is for what was asked: were shortened runs on time, it would never grow and every run be shortened."""
    device.slowdown["tiny/base/guided_step"] = 1.5
    result = device.runtime.generate("a red house", max_ms=430, seed=1)
    assert result.replanned > 0
    assert result.met
    cost = device.runtime.route("a red house", candidate="base@8").option.cost
    assert cost.margin_ms == pytest.approx(MARGIN_HIGH * cost.total_ms)


def test_later_images_of_a_late_request_are_replanned_too(device: FakeDevice) -> None:
    device.slowdown["tiny/base/guided_step"] = 1.3
    result = device.runtime.generate("a red house", max_ms=1280, seed=1, count=3)
    assert result.route.chosen.name == "base@8"
    assert result.met
    assert result.pixels.shape[0] == 3


def test_an_engine_that_is_not_resident_is_loaded_within_the_budget(open_device: Callable[..., FakeDevice]) -> None:
    device = open_device(preload=False)
    route = device.runtime.route("a red house", candidate="turbo@1")
    assert not route.option.resident
    assert route.option.ms == pytest.approx(35 + 90)
    cold = device.runtime.generate("a red house", candidate="turbo@1", max_ms=200, seed=1)
    assert cold.timings.swap_ms == pytest.approx(90)
    assert cold.predicted_ms == pytest.approx(125)
    warm = device.runtime.generate("a red house", candidate="turbo@1", max_ms=200, seed=1)
    assert warm.timings.swap_ms == 0
    assert sorted(device.engines) == ["tiny/text_encoder/encode", "tiny/turbo/step", "tiny/vae/decode"]


def test_a_new_negative_prompt_costs_one_text_call_and_the_next_time_none(device: FakeDevice) -> None:
    def ask() -> Result:
        return device.runtime.generate("a red house", negative_prompt="snow", seed=1)

    first, second = ask(), ask()
    assert (first.timings.text_ms, second.timings.text_ms) == pytest.approx((10, 6))
    assert first.route.option.cost.text_ms == 10
    np.testing.assert_array_equal(first.pixels, second.pixels)


def test_slow_first_runs_after_loading_do_not_predict_the_next(open_device: Callable[..., FakeDevice]) -> None:
    device, first = open_device(preload=False), set[str]()
    device.on_call.append(lambda name: device.clock.pass_ms(0 if name in first else 400) or first.add(name))
    cold = device.runtime.generate("a red house", candidate="base@4", seed=1)
    assert cold.timings.text_ms == pytest.approx(2 * 4 + 2 + 2 * 400)  # prompt, negative prompt, condition; two engines for the first time
    cost = device.runtime.route("a red house", candidate="base@4").option.cost
    assert (cost.text_ms, cost.denoise_ms, cost.decode_ms) == pytest.approx((6, 200, 10))


def test_every_call_of_a_warm_request_is_learned_from(device: FakeDevice) -> None:
    stages = {"text_encoder/encode": "text_ms", "base/condition": "text_ms", "base/guided_step": "denoise_ms", "vae/decode": "decode_ms"}
    before = device.runtime.route("a red house", candidate="base@4").option.cost
    for name in stages:
        device.slowdown[f"tiny/{name}"] = 3.0
    for seed in range(8):
        device.runtime.generate("a red house", candidate="base@4", seed=seed)
    cost = device.runtime.route("a red house", candidate="base@4").option.cost
    for stage in set(stages.values()):
        assert getattr(cost, stage) == pytest.approx(3 * getattr(before, stage), rel=0.05)


@pytest.mark.parametrize("count", [1, 3])
def test_the_cost_of_several_images_is_what_they_take(device: FakeDevice, count: int) -> None:
    result = device.runtime.generate("a red house", candidate="base@4", seed=1, count=count)
    cost = result.route.option.cost
    assert (cost.text_ms, cost.denoise_ms, cost.decode_ms) == pytest.approx((6, 200 * count, 10 * count))
    assert result.predicted_ms == pytest.approx(result.actual_ms + 1)


def test_costs_of_one_request_are_not_those_of_another_size_or_number_of_images(device: FakeDevice) -> None:
    def cost(**how: int) -> tuple[float, float]:
        found = device.runtime.route("a red house", candidate="base@4", **how).option.cost
        return found.denoise_ms, found.decode_ms

    assert [cost(), cost(count=2), cost(height=128), cost(), cost(width=32)] == [(200, 10), (400, 20), (400, 20), (200, 10), (100, 5)]


def test_text_costs_the_same_for_every_size(device: FakeDevice) -> None:
    for height in (32, 64, 128):
        assert device.runtime.route("a red house", candidate="base@4", height=height).option.cost.text_ms == 6


def test_events_count_the_rows_and_the_time_of_the_images_that_follow(device: FakeDevice) -> None:
    *steps, _ = device.runtime.stream("a red house", candidate="turbo@2", seed=1, count=3)
    events = [event for event in steps if isinstance(event, StepEvent)]
    assert [(event.index, event.total) for event in events] == [(index, 6) for index in range(1, 7)]
    assert [event.remaining_ms for event in events] == pytest.approx([130, 110, 80, 60, 30, 10])


def test_engines_are_loaded_before_the_first_row(open_device: Callable[..., FakeDevice]) -> None:
    device = open_device(preload=False)
    seen: list[list[str]] = []
    device.runtime.generate("a red house", candidate="turbo@2", seed=1, on_step=lambda event: seen.append(sorted(device.engines)))
    assert seen[0] == ["tiny/text_encoder/encode", "tiny/turbo/step", "tiny/vae/decode"]


def test_what_depends_on_the_text_alone_is_computed_once_per_request(device: FakeDevice) -> None:
    engine = device.engines["tiny/base/condition"]
    calls = engine.calls
    result = device.runtime.generate("a red house", candidate="base@4", seed=1, count=3)
    assert engine.calls == calls + 1
    assert (result.timings.text_ms, result.route.option.cost.text_ms) == pytest.approx((6, 6))
    device.runtime.generate("a red house", candidate="turbo@2", seed=1)
    assert engine.calls == calls + 1


def test_the_condition_engine_is_loaded_with_the_others(open_device: Callable[..., FakeDevice]) -> None:
    device = open_device(preload=False)
    cold = device.runtime.route("a red house", candidate="base@4").option
    result = device.runtime.generate("a red house", candidate="base@4", seed=1)
    warm = device.runtime.route("a red house", candidate="base@4").option
    assert (cold.cost.swap_ms, result.timings.swap_ms, warm.cost.swap_ms) == pytest.approx((120, 120, 0))
    files, components = device.resources.main_family.bundle.files, device.resources.main_family.bundle.components
    weights = sum(files[path].bytes for name in ("text_encoder", "base", "vae") for path in components[name].weights)
    assert (cold.memory_bytes, warm.memory_bytes) == (2 * weights, 4000)


def test_events_tell_the_progress_and_the_result_is_the_last(device: FakeDevice) -> None:
    *steps, result = device.runtime.stream("a red house", candidate="base@4", seed=1)
    assert isinstance(result, Result)
    assert all(isinstance(event, StepEvent) for event in steps)
    assert [(event.index, event.total) for event in steps if isinstance(event, StepEvent)] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    first = steps[0]
    assert isinstance(first, StepEvent)
    assert (first.elapsed_ms, first.remaining_ms) == pytest.approx((56, 160))
    assert first.preview is None


def test_a_preview_is_a_picture_of_the_images_size(device: FakeDevice) -> None:
    seen: list[StepEvent] = []
    device.runtime.generate("a red house", candidate="base@4", seed=1, preview=True, width=96, on_step=seen.append)
    assert [event.preview.size for event in seen if event.preview is not None] == [(96, 64)] * 4


def test_bad_arguments_of_a_stream_raise_at_once(device: FakeDevice) -> None:
    with pytest.raises(PromptError):
        device.runtime.stream("")
    with pytest.raises(ConfigError, match="candidate"):
        device.runtime.stream("a red house", candidate="no-such")


@pytest.mark.parametrize("how", ["on_step", "event", "event before", "close", "drop"])
def test_cancelling_takes_effect_within_one_call_and_the_runtime_goes_on(device: FakeDevice, how: str) -> None:
    expected = device.runtime.generate("a red house", seed=1).pixels
    engine, cancel = device.engines["tiny/base/guided_step"], threading.Event()
    calls = engine.calls
    if how in ("close", "drop"):
        events = device.runtime.stream("a red house", seed=1)
        next(events), next(events)
        if how == "close":
            events.close()
        del events
        gc.collect()
    else:
        if how == "event":
            device.on_call.append(lambda name: cancel.set() if engine.calls == calls + 1 else None)
        elif how == "event before":
            cancel.set()
        stop = (lambda event: event.index < 2) if how == "on_step" else None
        with pytest.raises(CancelledError):
            device.runtime.generate("a red house", seed=1, on_step=stop, cancel=cancel)
    assert engine.calls == calls + (0 if how == "event before" else 2)
    device.on_call.clear()
    np.testing.assert_array_equal(device.runtime.generate("a red house", seed=1).pixels, expected)


def test_an_error_in_a_callback_ends_the_request_only(device: FakeDevice) -> None:
    def fail(event: StepEvent) -> None:
        raise LookupError("mine")

    try:
        device.runtime.generate("a red house", seed=1, on_step=fail)
    except LookupError:
        assert device.runtime.generate("a red house", seed=1).pixels.any()
    else:
        pytest.fail("the error was lost")


def test_time_a_callback_takes_counts_against_the_deadline(device: FakeDevice) -> None:
    result = device.runtime.generate("a red house", seed=1, max_ms=430, on_step=lambda event: device.clock.pass_ms(20))
    assert result.route.chosen.name == "base@8"
    assert result.replanned > 0
    assert result.met
    assert result.timings.outside_ms == pytest.approx(20 * len(result.timings.denoise_ms))


def test_an_engine_that_fails_ends_the_request_only(device: FakeDevice) -> None:
    def fail(name: str) -> None:
        raise EngineError("it broke", reason=Reason.FAILED, engine=name)

    device.on_call.append(fail)
    with pytest.raises(EngineError, match="it broke"):
        device.runtime.generate("a red house", seed=1)
    device.on_call.clear()
    assert device.runtime.generate("a red house", seed=1).pixels.any()


def test_numbers_that_are_not_finite_are_an_error_not_a_grey_image(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = device.engines["tiny/turbo/step"]
    nothing = np.full((1, 4, 4, 4), np.nan, np.float32)
    monkeypatch.setattr(engine, "run", lambda feeds: {"next_latent": nothing, "denoised": nothing})
    with pytest.raises(EngineError, match=r"/turbo/step: .*not finite; build the engine again"):
        device.runtime.generate("a red house", candidate="turbo@1", seed=1)


def test_an_engine_that_failed_is_named_with_its_setup_and_bundle(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise EngineError("it failed while running", reason=Reason.FAILED, engine=engine)

    device.on_call.append(fail)
    key = EngineKey(
        **{**dict.fromkeys(EngineKey.__dataclass_fields__, "any"), "backend": "openvino", "provider": "gpu", "precision": "float16"}
    )
    monkeypatch.setattr(device.engines["tiny/text_encoder/encode"], "key", key)
    own = {"backend": "openvino", "provider": "gpu", "precision": "float16", "target": "any"}
    for engine, setup in (("tiny/text_encoder/encode", own), (None, dict(device.resources.setup))):
        with pytest.raises(EngineError, match="it failed while running; build the engine again") as caught:
            device.runtime.generate("a red house", seed=1)
        assert (caught.value.engine, caught.value.setup) == (engine, setup)
        assert caught.value.bundle == str(device.resources.main_family.bundle.root)


def test_a_request_within_a_request_is_refused_instead_of_waiting_for_ever(device: FakeDevice) -> None:
    def ask_again(event: StepEvent) -> None:
        with pytest.raises(ConfigError, match="already running a request of this thread"):
            device.runtime.generate("another house", seed=2)

    assert device.runtime.generate("a red house", seed=1, on_step=ask_again).pixels.any()


def test_two_threads_take_turns_and_get_what_they_would_alone(device: FakeDevice) -> None:
    alone = {seed: device.runtime.generate("a red house", seed=seed).pixels for seed in range(6)}
    running, overlaps = [0], []

    def watch(name: str) -> None:
        if name.endswith("encode"):
            overlaps.append(running[0])
            running[0] += 1
        elif name.endswith("decode"):
            running[0] -= 1

    device.on_call.append(watch)
    found: dict[int, Any] = {}

    def make(seeds: range) -> None:
        for seed in seeds:
            found[seed] = device.runtime.generate("a red house", seed=seed).pixels
            device.runtime.route("a red house", max_ms=1000)

    threads = [threading.Thread(target=make, args=(range(start, 6, 2),)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert overlaps == [0] * 6
    for seed, pixels in alone.items():
        np.testing.assert_array_equal(found[seed], pixels)


def test_a_closed_runtime_says_so(device: FakeDevice) -> None:
    with device.runtime as runtime:
        runtime.generate("a red house", seed=1)
    assert all(engine.is_closed for engine in device.engines.values())
    for ask in (runtime.generate, runtime.route):
        with pytest.raises(ConfigError, match="closed"):
            ask("a red house")
    runtime.close()


def test_closing_with_an_unfinished_stream_does_not_wait_for_it(device: FakeDevice) -> None:
    events = device.runtime.stream("a red house", seed=1)
    next(events)
    device.runtime.close()
    assert device.engines["tiny/vae/decode"].is_closed
    events.close()


def test_a_router_that_reads_states_gets_them(open_device: Callable[..., FakeDevice]) -> None:
    class FavoursFew:
        needs_states = True
        engines = ()

        def judge(self, prompt: str, states: TextStates | None) -> Judgement:
            assert states is not None
            assert (states.states.shape, states.lengths.tolist()) == ((1, 16, 2), [5])
            return Judgement(mean=np.array([1.0, 0.9, 0.8, 0.7]), standard_error=np.zeros(4), basis="test")

    device = open_device(quality=FavoursFew())
    result = device.runtime.generate("a red house", seed=1)
    assert result.route.chosen.name == device.runtime.route("a red house").chosen.name == "turbo@1"
    assert result.timings.text_ms == pytest.approx(4)  # the router's states are the denoiser's


def test_saved_images_say_how_they_were_made(device: FakeDevice, tmp_path: Path) -> None:
    result = device.runtime.generate("a house 🏡", negative_prompt="snow", max_ms=700, seed=7, count=2)
    for index in range(2):
        path = result.save(tmp_path / f"{index}.png", index=index)
        settings = read_settings(path)
        assert settings["seed"] == 7 + index
        candidate = settings["candidate"]
        again = device.runtime.generate(
            settings["prompt"], negative_prompt=settings["negative_prompt"], seed=settings["seed"], candidate=candidate
        )
        np.testing.assert_array_equal(again.pixels[0], result.pixels[index])
    assert settings["prompt"] == "a house 🏡"
    assert settings["family"] == "tiny"
    assert settings["max_ms"] == 700
    with pytest.raises(ConfigError, match="index"):
        result.save(tmp_path / "2.png", index=2)
    with pytest.raises(OutputError):
        result.save(tmp_path / "missing" / "1.png")


def test_the_pool_is_the_bundles(device: FakeDevice, bundle: Bundle) -> None:
    assert [candidate.name for candidate in device.runtime.candidates] == [name for name, *_ in POOL]
    assert device.runtime.family == bundle.family
