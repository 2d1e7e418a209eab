"""The cost model: predictions from profiled calls, and corrections from observed ones."""

from __future__ import annotations

import pytest

from costroute_rt.call import Call, Stage
from costroute_rt.cost.correction import MARGIN_HIGH, MARGIN_LOW
from costroute_rt.cost.cost_model import CostModel, Observed
from costroute_rt.cost.window import Window
from costroute_rt.route import Cost
from tests.runtime.fakes import FakeClock, steady

MEASURED = {
    "tiny/text_encoder/encode": steady(4, p95=1.5),
    "tiny/base/condition": steady(3),
    "tiny/base/step": steady(50, p95=1.1),
    "tiny/turbo/step": steady(20),
    "tiny/vae/decode": steady(10),
}
Calls = tuple[Call, ...]


def make_calls(step: str = "tiny/base/step", times: int = 4, *, images: int = 1, texts: int = 1, area: float = 1.0) -> Calls:
    """The calls of a request."""
    each = (Call(step, Stage.DENOISE, times=times, area=area), Call("tiny/vae/decode", Stage.DECODE, area=area))
    return (Call("tiny/text_encoder/encode", Stage.TEXT, times=texts), *(each * images))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def model(clock: FakeClock) -> CostModel:
    return CostModel(MEASURED, clock)


def run(model: CostModel, clock: FakeClock, calls: Calls, factor: float, *, extra_ms: float = 0.0) -> None:
    """Observe a request whose calls take `factor` times the profiled time."""
    predicted, observed, total_ms = model.predict(calls), Observed(), 1.0 + extra_ms
    for call in calls:
        ms = MEASURED[call.engine].call.median_ms * factor
        for _ in range(call.times):
            model.record_call(observed, call, ms)
        total_ms += call.times * ms
    clock.pass_ms(total_ms)
    observed.rows, observed.request_overhead_ms = 1, 1.0
    model.observe(predicted, observed, actual_ms=total_ms)


def test_condition_calls_count_as_text(clock: FakeClock) -> None:
    model = CostModel(MEASURED, clock)
    costs = [model.predict((Call("tiny/base/condition", Stage.TEXT, rows=rows), *make_calls())) for rows in (1, 2)]
    assert [cost.text_ms for cost in costs] == [7, 10]
    assert costs[0].denoise_ms == model.predict(make_calls()).denoise_ms


def test_a_prediction_adds_up_the_measured_calls(model: CostModel) -> None:
    cost = model.predict(make_calls())
    assert (cost.text_ms, cost.denoise_ms, cost.decode_ms, cost.swap_ms) == (4, 200, 10, 0)
    assert cost.total_ms == pytest.approx(214 + cost.overhead_ms)


def test_spreads_of_calls_add_in_quadrature(model: CostModel) -> None:
    cost = model.predict(make_calls())
    assert cost.spread_ms == pytest.approx((2**2 + 4 * 5**2) ** 0.5)
    assert cost.p95_ms == pytest.approx(cost.total_ms + cost.spread_ms + MARGIN_LOW * cost.total_ms)


def test_loads_and_a_second_text_add_to_the_cost(model: CostModel) -> None:
    cost = model.predict(make_calls(texts=2), ("tiny/base/step", "tiny/vae/decode"))
    assert (cost.text_ms, cost.swap_ms) == (8, 60)


def test_cost_grows_with_the_area_and_the_number_of_images(model: CostModel) -> None:
    assert model.predict(make_calls(area=1.5)).denoise_ms == pytest.approx(300)
    assert model.predict(make_calls(images=3)).decode_ms == 30


@pytest.mark.parametrize("factor", [0.6, 1.4, 3.0])
def test_observed_times_correct_the_prediction_within_a_few_images(model: CostModel, clock: FakeClock, factor: float) -> None:
    for _ in range(6):
        run(model, clock, make_calls(), factor)
    assert model.predict(make_calls()).total_ms == pytest.approx(214 * factor + 1, rel=0.05)


def test_one_slow_image_among_many_changes_little(model: CostModel, clock: FakeClock) -> None:
    for factor in (1, 1, 1, 1, 1, 1, 5):
        run(model, clock, make_calls(), factor)
    assert model.predict(make_calls()).total_ms == pytest.approx(215, rel=0.02)


def test_a_slow_device_is_expected_to_be_slow_with_other_engines_too(model: CostModel, clock: FakeClock) -> None:
    for _ in range(5):
        run(model, clock, make_calls("tiny/base/step"), 2.0)
    assert model.predict(make_calls("tiny/turbo/step")).denoise_ms == pytest.approx(160, rel=0.1)


def test_the_factor_of_an_unused_engine_returns_to_that_of_the_others(model: CostModel, clock: FakeClock) -> None:
    for _ in range(40):
        run(model, clock, make_calls("tiny/base/step"), 2.0)
    for _ in range(40):
        run(model, clock, make_calls("tiny/turbo/step"), 1.0)
    clock.pass_ms(601_000)
    assert model.predict(make_calls("tiny/base/step")).denoise_ms == pytest.approx(200)


def test_old_observations_expire(model: CostModel, clock: FakeClock) -> None:
    for _ in range(40):
        run(model, clock, make_calls(), 3.0)
    clock.pass_ms(601_000)
    assert model.predict(make_calls()).total_ms == pytest.approx(215)


def test_the_margin_follows_late_images_within_limits(model: CostModel, clock: FakeClock) -> None:
    for index in range(40):
        run(model, clock, make_calls(), 1.0, extra_ms=22 if index % 8 == 0 else 0)
    cost = model.predict(make_calls())
    assert MARGIN_LOW * cost.total_ms < cost.margin_ms < MARGIN_HIGH * cost.total_ms
    for index in range(40):
        run(model, clock, make_calls(), 1.0, extra_ms=120 if index % 8 == 0 else 0)
    cost = model.predict(make_calls())
    assert cost.margin_ms == pytest.approx(MARGIN_HIGH * cost.total_ms)


def test_late_images_within_the_spread_leave_the_margin_alone(model: CostModel, clock: FakeClock) -> None:
    """The spread of these calls is 10 ms, 5 % of their time: only what goes beyond it is for the margin."""
    for _ in range(40):
        run(model, clock, make_calls(), 1.0, extra_ms=9)
    cost = model.predict(make_calls())
    assert cost.spread_ms > 9 > MARGIN_LOW * cost.total_ms
    assert cost.margin_ms == pytest.approx(MARGIN_LOW * cost.total_ms)


def test_the_runs_of_an_engine_in_one_request_are_added_up(model: CostModel) -> None:
    observed, (_, step, _) = Observed(), make_calls()
    for actual_ms in (50.0, 50.0, 50.0, 250.0):
        model.record_call(observed, step, actual_ms)
    assert observed.calls == {"tiny/base/step 1": (200.0, 400.0)}


def test_load_times_are_corrected_apart_from_calls(model: CostModel, clock: FakeClock) -> None:
    calls, loads = make_calls(), ("tiny/base/step",)
    for _ in range(8):
        observed = Observed()
        model.record_load(observed, "tiny/base/step", 90.0)
        model.observe(model.predict(calls, loads), observed, actual_ms=300)
    cost = model.predict(calls, loads)
    assert cost.swap_ms == pytest.approx(90)
    assert cost.denoise_ms == 200


def test_loads_of_some_engines_tell_how_long_others_take(model: CostModel) -> None:
    """A profile taken while other programs ran has loading times that are too long for all engines."""
    calls, loads = make_calls(), ("tiny/vae/decode",)
    before_ms = model.predict(calls, loads).swap_ms
    for _ in range(4):
        observed = Observed()
        model.record_load(observed, "tiny/base/step", 0.2 * MEASURED["tiny/base/step"].load.median_ms)
        model.observe(model.predict(calls, loads), observed, actual_ms=300)
    assert model.predict(calls, loads).swap_ms == pytest.approx(0.2 * before_ms)
    for _ in range(4):
        observed = Observed()
        model.record_load(observed, "tiny/vae/decode", 0.5 * before_ms)
        model.observe(model.predict(calls, loads), observed, actual_ms=300)
    assert model.predict(calls, loads).swap_ms == pytest.approx(0.5 * before_ms)


def test_calls_of_the_router_are_overhead_not_text(clock: FakeClock) -> None:
    model = CostModel(MEASURED, clock, routing_ms=3.0)
    with_router = model.predict((Call("tiny/router_encoder/encode", Stage.ROUTE), *make_calls()))
    assert with_router == model.predict(make_calls())
    assert with_router.overhead_ms == CostModel(MEASURED, clock).predict(make_calls()).overhead_ms + 3.0


def test_each_size_and_number_of_texts_has_its_own_correction(model: CostModel, clock: FakeClock) -> None:
    for _ in range(6):
        run(model, clock, make_calls(), 2.0)
    assert model.predict(make_calls()).denoise_ms == pytest.approx(400, rel=0.05)
    observed = Observed()
    large = make_calls(area=4.0)
    model.record_call(observed, large[1], 200.0)
    assert observed.calls == {"tiny/base/step 4": (200.0, 200.0)}


def test_a_window_has_a_size_and_drops_old_values() -> None:
    clock = FakeClock()
    window = Window(clock, size=3, max_age_s=10, prior=(1.0,))
    for value in (5.0, 6.0, 7.0, 8.0):
        window.add(value)
        clock.pass_ms(4000)
    assert window.values() == [1.0, 7.0, 8.0]
    clock.pass_ms(60_000)
    assert window.median() == window.upper(0.98) == 1.0


def test_a_cost_as_json_has_both_estimates() -> None:
    cost = Cost(overhead_ms=1, text_ms=2, swap_ms=0, denoise_ms=3, decode_ms=4, spread_ms=1)
    assert cost.to_json()["total_ms"] == 10
    assert cost.to_json()["p95_ms"] == 11


def test_the_wait_for_other_requests_is_part_of_both_estimates(model: CostModel) -> None:
    alone, queued = model.predict(make_calls()), model.predict(make_calls(), queue_ms=300.0)
    assert queued.total_ms == pytest.approx(alone.total_ms + 300)
    assert queued.p95_ms == pytest.approx(alone.p95_ms + 300)
    assert (queued.idle_ms, queued.to_json()["queue_ms"]) == (pytest.approx(alone.p95_ms), 300)


def test_waiting_teaches_nothing(model: CostModel) -> None:
    for _ in range(40):
        observed = Observed(rows=4, request_overhead_ms=1.0)
        for call in make_calls():
            for _ in range(call.times):
                model.record_call(observed, call, MEASURED[call.engine].call.median_ms)
        model.observe(model.predict(make_calls(), queue_ms=5000.0), observed, actual_ms=215.0)
    assert model.predict(make_calls()).p95_ms == pytest.approx(CostModel(MEASURED, FakeClock()).predict(make_calls()).p95_ms)


def test_overhead_is_charged_per_request_and_per_row(model: CostModel) -> None:
    for _ in range(40):
        model.observe(model.predict(make_calls()), Observed(rows=4, row_overhead_ms=12.0, request_overhead_ms=7.0), actual_ms=233.0)
    assert [model.predict(make_calls(times=times)).overhead_ms for times in (1, 4, 8)] == pytest.approx([10, 19, 31])


def test_what_was_learned_under_load_can_be_forgotten(model: CostModel, clock: FakeClock) -> None:
    before = model.predict(make_calls())
    for _ in range(40):
        run(model, clock, make_calls(), 3.0, extra_ms=100)
    loaded = model.predict(make_calls())
    assert 3 < loaded.recent_factor < 4.3  # three times the time, and a larger margin
    assert loaded.idle_ms == pytest.approx(before.p95_ms, rel=0.01)
    model.forget_load()
    assert model.predict(make_calls()).p95_ms == pytest.approx(before.p95_ms)


def test_load_is_stale_two_seconds_after_the_last_slow_run(model: CostModel, clock: FakeClock) -> None:
    run(model, clock, make_calls(), 3.0)
    assert not model.predict(make_calls()).is_load_stale
    clock.pass_ms(1900)
    assert not model.predict(make_calls()).is_load_stale
    clock.pass_ms(200)
    assert model.predict(make_calls()).is_load_stale


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.05])
def test_runs_as_fast_as_usual_are_no_load(model: CostModel, clock: FakeClock, factor: float) -> None:
    for _ in range(10):
        run(model, clock, make_calls(), factor)
    cost = model.predict(make_calls())
    assert (cost.recent_factor, cost.is_load_stale) == (pytest.approx(1), True)


def test_a_slow_speed_becomes_usual_in_minutes_and_not_in_seconds(model: CostModel, clock: FakeClock) -> None:
    while clock.now < 100 + 20:
        run(model, clock, make_calls(), 2.0)
    assert model.predict(make_calls()).recent_factor > 1.9
    while clock.now < 100 + 120:
        run(model, clock, make_calls(), 2.0)
    assert model.predict(make_calls()).recent_factor == pytest.approx(1)


class TestProbe:
    """A call that is run after a refusal, only to measure it."""

    def find(self, model: CostModel, max_ms: float = 230.0) -> Call | None:
        return model.find_probe([make_calls()], max_ms)

    def probe(self, model: CostModel, factor: float) -> None:
        """Measure a call that takes `factor` times the profiled time."""
        found = self.find(model)
        assert found is not None
        model.record_probe(found, factor * found.times * MEASURED[found.engine].call.median_ms)

    def test_it_is_what_takes_the_most_time_of_the_fastest_plan(self, model: CostModel, clock: FakeClock) -> None:
        run(model, clock, make_calls(), 3.0)
        clock.pass_ms(600)
        assert self.find(model) == Call("tiny/base/step", Stage.DENOISE, times=1)
        fastest = (Call("tiny/text_encoder/encode", Stage.TEXT), Call("tiny/vae/decode", Stage.DECODE))
        assert model.find_probe([make_calls(), fastest], 230.0) == Call("tiny/vae/decode", Stage.DECODE, times=2)

    def test_one_run_takes_at_most_100_ms_where_a_call_is_so_short(self, model: CostModel) -> None:
        assert model.find_probe([make_calls(area=2.5)], 230.0) == Call("tiny/vae/decode", Stage.DECODE, times=1, area=2.5)
        step = Call("tiny/base/step", Stage.DENOISE, area=2.5)
        assert model.find_probe([(step,)], 230.0) == step

    def test_there_is_none_right_after_an_observation(self, model: CostModel, clock: FakeClock) -> None:
        run(model, clock, make_calls(), 3.0)
        clock.pass_ms(400)
        assert self.find(model) is None
        clock.pass_ms(200)
        self.probe(model, 3.0)
        assert self.find(model) is None

    def test_there_is_none_for_budgets_far_below_the_profiled_time(self, model: CostModel) -> None:
        assert self.find(model, max_ms=11.0) is not None
        assert self.find(model, max_ms=10.0) is None
        assert model.find_probe([], 230.0) is None

    def test_a_slow_one_keeps_the_load_from_getting_stale(self, model: CostModel, clock: FakeClock) -> None:
        run(model, clock, make_calls(), 3.0)
        for _ in range(5):
            clock.pass_ms(1500)
            self.probe(model, 3.0)
            assert not model.predict(make_calls()).is_load_stale

    @pytest.mark.parametrize("seconds", [6, 300])
    def test_a_fast_one_ends_the_load(self, model: CostModel, clock: FakeClock, seconds: float) -> None:
        before = model.predict(make_calls())
        while clock.now < 100 + seconds:
            run(model, clock, make_calls(), 3.0)
        clock.pass_ms(600)
        self.probe(model, 1.0)
        assert model.predict(make_calls()).p95_ms == pytest.approx(before.p95_ms)

    def test_one_between_lessens_the_load(self, model: CostModel, clock: FakeClock) -> None:
        for _ in range(10):
            run(model, clock, make_calls(), 1.0)
        for _ in range(10):
            run(model, clock, make_calls(), 4.0)
        assert model.predict(make_calls()).total_ms > 3 * 214
        clock.pass_ms(600)
        self.probe(model, 2.0)
        assert model.predict(make_calls()).total_ms < 2.2 * 214

    @pytest.mark.parametrize("factor", [0.2, 0.4])
    def test_a_very_fast_one_shows_that_the_profile_was_taken_under_load(self, model: CostModel, factor: float) -> None:
        self.probe(model, factor)
        assert model.predict(make_calls()).denoise_ms == pytest.approx(factor * 200)
        assert model.predict(make_calls("tiny/turbo/step")).denoise_ms == pytest.approx(factor * 80)

    def test_one_a_little_faster_than_the_profile_changes_little(self, model: CostModel) -> None:
        self.probe(model, 0.7)
        assert model.predict(make_calls()).denoise_ms == pytest.approx(200)

    def test_slow_ones_alone_refuse_for_half_a_minute_at_most(self, model: CostModel, clock: FakeClock) -> None:
        for _ in range(4):
            run(model, clock, make_calls(), 3.0)
        for _ in range(34):
            clock.pass_ms(1000)
            self.probe(model, 3.0)
        assert model.predict(make_calls()).is_load_stale
