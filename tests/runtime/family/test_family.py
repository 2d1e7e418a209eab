"""A family's plans: which engine makes which size, and what share of the measured work that is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import BundleError, EngineError
from costroute_rt.family.family import EngineSizes, Family
from tests.tiny_bundle import FLOW

WIDE = (64, 96)


@pytest.fixture(scope="module")
def family(bundle: Bundle) -> Family:
    return Family.open(bundle)


def areas(family: Family, size: tuple[int, int]) -> dict[str, float]:
    """Area by engine, of a guided candidate."""
    candidate = next(each for each in family.pool if each.is_guided)
    return {call.engine: call.area for call in family.calls(candidate, size)}


def test_work_of_the_usual_engines_grows_with_the_image_except_for_the_text(family: Family) -> None:
    assert areas(family, (64, 64)) == dict.fromkeys(areas(family, (64, 64)), 1.0)
    assert areas(family, WIDE) == {
        "tiny/text_encoder/encode": 1.0,
        "tiny/base/condition": 1.0,
        "tiny/base/guided_step": 1.5,
        "tiny/vae/decode": 1.5,
    }


def test_an_engine_of_one_size_was_measured_at_that_size(family: Family) -> None:
    sized = family.with_sizes(EngineSizes(frozenset({WIDE})))
    assert areas(sized, WIDE) == {
        "tiny/text_encoder/encode": 1.0,
        "tiny/base/condition": 1.0,
        "tiny/base/guided_step@64x96": 1.0,
        "tiny/vae/decode@64x96": 1.0,
    }
    assert areas(sized, (128, 64))["tiny/base/guided_step"] == 2.0
    assert "tiny/base/guided_step" in areas(family, WIDE)  # what the other family keeps is its own


def test_a_size_without_engines_is_refused_with_the_nearest(family: Family) -> None:
    sized = family.with_sizes(EngineSizes(frozenset({WIDE, (16, 16)}), has_usual=False))
    with pytest.raises(EngineError, match=r"128x64.* 64x96") as caught:
        areas(sized, (128, 64))
    assert caught.value.engine == "tiny/base/guided_step@128x64"  # not the text encoder, which serves every size
    assert sized.sizes.first(sized.bundle) == (16, 16)
    assert EngineSizes(frozenset({(16, 16), (64, 64)}), has_usual=False).first(sized.bundle) == (64, 64)


def test_each_row_of_a_table_is_a_call_and_heun_has_two_for_a_step(bundle: Bundle) -> None:
    heun = {"_class_name": "HeunDiscreteScheduler", "prediction_type": "epsilon", "timestep_spacing": "trailing"}
    family = Family.open(replace(bundle, schedulers=dict.fromkeys(bundle.schedulers, heun)))
    plan = family.plan(next(each for each in family.pool if each.num_inference_steps == 4), (64, 64))
    assert plan.step.times == len(plan.table) == 7


def test_a_plan_and_its_calls_are_put_together_once(family: Family) -> None:
    candidate = family.pool[0]
    assert family.plan(candidate, WIDE) is family.plan(candidate, WIDE)
    assert family.calls(candidate, WIDE) is family.calls(candidate, WIDE)
    assert family.plan(candidate, WIDE).latent_shape == (4, 4, 6)


def test_plans_and_calls_of_many_sizes_are_not_all_kept(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("costroute_rt.family.family._KEPT", 3)
    family = Family.open(bundle)
    for width in range(16, 129, 16):
        family.calls(family.pool[0], (64, width))
        assert len(family._plans) <= 3
        assert len(family._calls) <= 3


def test_another_thread_may_clear_a_cache_at_any_time(bundle: Bundle) -> None:
    class Cleared(dict[Any, Any]):
        def __setitem__(self, key: Any, value: Any) -> None:
            super().__setitem__(key, value)
            self.clear()

    family = Family.open(bundle)
    for cache in ("_plans", "_calls"):
        object.__setattr__(family, cache, Cleared())
    assert [call.times for call in family.calls(family.pool[0], WIDE, 3)] == [1, 3, 3]


def test_a_scheduler_with_a_carried_latent_needs_graphs_that_take_one(bundle: Bundle) -> None:
    unipc = {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 2.0}
    with pytest.raises(BundleError, match=r"tiny-turbo@2 has the scheduler turbo, which carries one more latent, and .*step\.onnx has no"):
        Family.open(replace(bundle, schedulers=dict.fromkeys(bundle.schedulers, unipc)))


def test_a_scheduler_that_no_candidate_uses_need_not_compile(bundle: Bundle) -> None:
    unknown = {**bundle.schedulers, "unused": {"_class_name": "AnotherScheduler"}}
    assert Family.open(replace(bundle, schedulers=unknown)).pool
    with pytest.raises(BundleError, match="AnotherScheduler"):
        Family.open(replace(bundle, schedulers={**unknown, "turbo": unknown["unused"]}))


def test_a_shift_that_leaves_its_range_at_another_size_of_the_bundle_is_refused(bundle: Bundle) -> None:
    """The shift falls with the number of latent tokens: it is 1 at 16 tokens, the usual size, and below 0 at 24."""
    falling = {"use_dynamic_shifting": True, "time_shift_type": "linear", "base_shift": 1.0, "max_shift": 0.001}
    scheduler = {**FLOW, **falling, "base_image_seq_len": 16, "max_image_seq_len": 20}
    shifted = replace(bundle, schedulers=dict.fromkeys(bundle.schedulers, scheduler))
    with pytest.raises(BundleError, match="a scheduler in it cannot be used"):
        Family.open(shifted)
    assert Family.open(replace(shifted, image=replace(bundle.image, sizes=((64, 64),)))).pool
