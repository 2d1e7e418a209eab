"""The runtime's public methods, on fake engines."""

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
from costroute_rt.error import BudgetError, CancelledError, ConfigError, EngineError, OutputError, PromptError, Reason, StateError
from costroute_rt.image_settings import read_settings
from costroute_rt.judgement import Judgement
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


def test_a_result_can_be_written_as_json(device: FakeDevice) -> None:
    result = device.runtime.generate("a red house", max_ms=300, seed=7)
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert data["actual_ms"] == pytest.approx(216)
    assert data["timings"]["denoise_ms"] == [50.0] * 4
    assert data["settings"]["candidate"] == data["route"]["chosen"] == "base@4"


def test_met_is_none_without_a_budget(device: FakeDevice) -> None:
    result = device.runtime.generate("a red house", seed=7)
    assert result.route.chosen.name == "base@8"
    assert result.met is None


def test_the_same_seed_gives_the_same_pixels(device: FakeDevice) -> None:
    first, again, other = (device.runtime.generate("a red house", seed=seed).pixels for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_negative_prompt_changes_the_pixels_of_guided_candidates_only(device: FakeDevice) -> None:
    def make(candidate: str, prompt: str = "a red house", negative_prompt: str = "") -> Any:
        return device.runtime.generate(prompt, negative_prompt=negative_prompt, candidate=candidate, seed=7).pixels

    assert (make("base@4") != make("base@4", prompt="a starry night")).any()
    assert (make("base@4") != make("base@4", negative_prompt="snow")).any()
    np.testing.assert_array_equal(make("turbo@2"), make("turbo@2", negative_prompt="snow"))


@pytest.mark.parametrize("scheduler", [None, STOCHASTIC], ids=["flow", "stochastic"])
def test_three_images_equal_those_of_three_consecutive_seeds(open_device: Callable[..., FakeDevice], scheduler: Any) -> None:
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


def test_images_have_the_requested_size(device: FakeDevice) -> None:
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
        ({"candidate": "base@8", "max_ms": 15}, BudgetError),
    ],
)
def test_an_invalid_request_raises_and_later_ones_work(device: FakeDevice, arguments: dict[str, Any], error: type[Exception]) -> None:
    calls = device.engines["tiny/base/guided_step"].calls
    with pytest.raises(error):
        device.runtime.generate(**{"prompt": "a red house", **arguments})
    assert device.engines["tiny/base/guided_step"].calls == calls
    assert device.runtime.generate("a red house", seed=1).pixels.any()


def test_the_error_for_an_unknown_candidate_lists_the_known_ones(device: FakeDevice) -> None:
    with pytest.raises(ConfigError, match="turbo@1, turbo@2, base@4, base@8"):
        device.runtime.route("a red house", candidate="turbo")


def test_long_prompts_and_emoji_make_an_image(device: FakeDevice) -> None:
    assert device.runtime.generate("a red house " * 30, seed=1).truncated
    assert not device.runtime.generate("🏡 by a lake", seed=1).truncated


def test_a_named_candidate_is_the_only_option(device: FakeDevice) -> None:
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


@pytest.mark.parametrize(("slowdown", "max_ms", "margin"), [(1.05, 426, (8 * 52.5 + 16 - 417) / 417), (1.5, 430, MARGIN_HIGH)])
def test_a_run_that_was_shortened_to_be_in_time_counts_as_late(device: FakeDevice, slowdown: float, max_ms: float, margin: float) -> None:
    """As late as all its rows would have been: were shortened runs on time, the margin would never grow and every run be shortened."""
    device.slowdown["tiny/base/guided_step"] = slowdown
    result = device.runtime.generate("a red house", candidate="base@8", max_ms=max_ms, seed=1)
    assert result.replanned > 0
    assert result.met
    cost = device.runtime.route("a red house", candidate="base@8").option.cost
    assert cost.margin_ms == pytest.approx(margin * cost.total_ms)


def test_a_prompt_is_judged_once_for_requests_that_differ_in_other_things(open_device: Callable[..., FakeDevice]) -> None:
    judged = list[str]()

    class Listens:
        needs_states, engines = False, ()

        def judge(self, prompt: str, states: TextStates | None) -> Judgement:
            judged.append(prompt)
            return Judgement(mean=np.arange(4.0), standard_error=np.ones(4), basis="test")

    runtime = open_device(quality=Listens()).runtime
    first = runtime.generate("a red house", seed=1)
    second = runtime.generate("a red house", seed=2, max_ms=300)
    runtime.route("a red house", plain_prompt=True)
    runtime.generate("a lake", seed=1)
    assert judged == ["a red house", "a red house", "a lake"]
    assert first.route.judgement is second.route.judgement


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


def test_a_new_negative_prompt_is_encoded_once_and_then_cached(device: FakeDevice) -> None:
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


@pytest.mark.parametrize(
    ("engine", "changed"),
    [
        ("text_encoder/encode", (14, 200, 10)),
        ("base/condition", (10, 200, 10)),
        ("base/guided_step", (6, 600, 10)),
        ("vae/decode", (6, 200, 30)),
    ],
)
def test_an_engine_that_is_slower_than_measured_is_expected_to_stay_so(
    device: FakeDevice, engine: str, changed: tuple[float, float, float]
) -> None:
    device.slowdown[f"tiny/{engine}"] = 3.0
    for seed in range(8):
        device.runtime.generate("a red house", candidate="base@4", seed=seed)
    cost = device.runtime.route("a red house", candidate="base@4").option.cost
    assert (cost.text_ms, cost.denoise_ms, cost.decode_ms) == pytest.approx(changed, rel=0.01)


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


def test_the_condition_graph_runs_once_per_request(device: FakeDevice) -> None:
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


def test_a_stream_yields_progress_events_and_then_the_result(device: FakeDevice) -> None:
    *steps, result = device.runtime.stream("a red house", candidate="base@4", seed=1)
    assert isinstance(result, Result)
    assert all(isinstance(event, StepEvent) for event in steps)
    assert [(event.index, event.total) for event in steps if isinstance(event, StepEvent)] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    first = steps[0]
    assert isinstance(first, StepEvent)
    assert (first.elapsed_ms, first.remaining_ms) == pytest.approx((56, 160))
    assert first.preview is None


def test_a_preview_has_the_size_of_the_image(device: FakeDevice) -> None:
    seen: list[StepEvent] = []
    device.runtime.generate("a red house", candidate="base@4", seed=1, preview=True, width=96, on_step=seen.append)
    assert [event.preview.size for event in seen if event.preview is not None] == [(96, 64)] * 4


def test_invalid_arguments_of_a_stream_raise_before_the_first_event(device: FakeDevice) -> None:
    with pytest.raises(PromptError):
        device.runtime.stream("")
    with pytest.raises(ConfigError, match="candidate"):
        device.runtime.stream("a red house", candidate="no-such")


@pytest.mark.parametrize("how", ["on_step", "event", "event before", "close", "drop"])
def test_cancelling_takes_effect_after_the_running_call_and_later_requests_work(device: FakeDevice, how: str) -> None:
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


def test_an_error_in_a_callback_ends_only_its_request(device: FakeDevice) -> None:
    def fail(event: StepEvent) -> None:
        raise LookupError("mine")

    try:
        device.runtime.generate("a red house", seed=1, on_step=fail)
    except LookupError:
        assert device.runtime.generate("a red house", seed=1).pixels.any()
    else:
        pytest.fail("the error was lost")


def test_time_spent_in_callbacks_counts_against_the_deadline(device: FakeDevice) -> None:
    result = device.runtime.generate("a red house", seed=1, max_ms=430, on_step=lambda event: device.clock.pass_ms(20))
    assert result.route.chosen.name == "base@8"
    assert result.replanned > 0
    assert result.met
    assert result.timings.caller_ms == pytest.approx(20 * len(result.timings.denoise_ms))
    assert result.timings.outside_ms == pytest.approx(0, abs=1e-6)


def test_a_failing_engine_ends_only_its_request(device: FakeDevice) -> None:
    def fail(name: str) -> None:
        raise EngineError("it broke", reason=Reason.FAILED, engine=name)

    device.on_call.append(fail)
    with pytest.raises(EngineError, match="it broke"):
        device.runtime.generate("a red house", seed=1)
    device.on_call.clear()
    assert device.runtime.generate("a red house", seed=1).pixels.any()


def test_a_latent_that_is_not_finite_raises_instead_of_giving_an_image(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = device.engines["tiny/turbo/step"]
    nothing = np.full((1, 4, 4, 4), np.nan, np.float32)
    monkeypatch.setattr(engine, "run", lambda feeds: {"next_latent": nothing, "denoised": nothing})
    with pytest.raises(EngineError, match=r"/turbo/step: .*not finite; build the engine again"):
        device.runtime.generate("a red house", candidate="turbo@1", seed=1)


def test_the_error_of_a_failed_engine_has_its_setup_and_bundle(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_request_from_within_a_callback_raises_instead_of_deadlocking(device: FakeDevice) -> None:
    def ask_again(event: StepEvent) -> None:
        with pytest.raises(StateError, match="on_step called the runtime"):
            device.runtime.generate("another house", seed=2)

    assert device.runtime.generate("a red house", seed=1, on_step=ask_again).pixels.any()


def test_requests_of_two_threads_do_not_overlap_and_give_the_same_pixels(device: FakeDevice) -> None:
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


def test_waiting_for_another_request_is_part_of_the_time_of_ones_own(device: FakeDevice) -> None:
    found = list[Result]()
    waiter = threading.Thread(target=lambda: found.append(device.runtime.generate("a lake", candidate="turbo@1", seed=1)))

    def hold(name: str) -> None:
        if name == "tiny/turbo/step" and not waiter.ident:
            waiter.start()
            device.wait_for_waiting(1)
            device.clock.pass_ms(500)

    device.on_call.append(hold)
    device.runtime.generate("a red house", candidate="turbo@2", seed=1)
    waiter.join(60)
    timings = found[0].timings
    assert (timings.waited_ms, timings.total_ms, timings.outside_ms) == pytest.approx((500 + 20 + 20 + 10, 550 + 34, 0), abs=1e-6)


def test_a_closed_runtime_raises_state_errors(device: FakeDevice) -> None:
    with device.runtime as runtime:
        runtime.generate("a red house", seed=1)
    assert all(engine.is_closed for engine in device.engines.values())
    for ask in (runtime.generate, runtime.route):
        with pytest.raises(StateError, match="closed"):
            ask("a red house")
    runtime.close()


def test_close_does_not_wait_for_an_unfinished_stream_of_the_same_thread(device: FakeDevice) -> None:
    events = device.runtime.stream("a red house", seed=1)
    next(events)
    device.runtime.close()
    assert device.engines["tiny/vae/decode"].is_closed
    events.close()


def test_several_threads_may_close_at_once_while_a_stream_is_paused(device: FakeDevice) -> None:
    events = device.runtime.stream("a red house", seed=1)
    next(events)
    errors: list[Exception] = []

    def close() -> None:
        try:
            device.runtime.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=close) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert all(engine.is_closed for engine in device.engines.values())
    with pytest.raises(StateError, match="closed"):
        next(events)
    assert list(events) == []


def test_a_router_that_needs_text_states_gets_them(open_device: Callable[..., FakeDevice]) -> None:
    class PrefersFewSteps:
        needs_states = True
        engines = ()

        def judge(self, prompt: str, states: TextStates | None) -> Judgement:
            assert states is not None
            assert (states.states.shape, states.lengths.tolist()) == ((1, 16, 2), [5])
            return Judgement(mean=np.array([1.0, 0.9, 0.8, 0.7]), standard_error=np.zeros(4), basis="test")

    device = open_device(quality=PrefersFewSteps())
    result = device.runtime.generate("a red house", seed=1)
    assert result.route.chosen.name == device.runtime.route("a red house").chosen.name == "turbo@1"
    assert result.timings.text_ms == pytest.approx(4)  # the denoiser reuses the router's states


def test_saved_images_contain_settings_that_reproduce_them(device: FakeDevice, tmp_path: Path) -> None:
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


def test_the_runtime_has_the_bundles_pool_and_family(device: FakeDevice, bundle: Bundle) -> None:
    assert [candidate.name for candidate in device.runtime.candidates] == [name for name, *_ in POOL]
    assert device.runtime.family == bundle.family
