"""What leaves, and what has to be loaded, within a limit of memory."""

from __future__ import annotations

import pytest

from costroute_rt.call import Call, Stage
from costroute_rt.family.memory import RESERVE_BYTES, MemoryLimit, choose_victim, find_phases

SIZES = {"text": 30, "condition": 5, "step": 50, "decode": 20, "other": 40}


def limit(budget: int, peak: float = 1.0) -> MemoryLimit:
    return MemoryLimit(
        max_bytes=1000 + RESERVE_BYTES + budget, base_bytes=1000, size_of=SIZES.__getitem__, peak_of=lambda name: int(peak * SIZES[name])
    )


PHASES = (("text",), ("condition", "step"), ("decode",))


@pytest.mark.parametrize(
    ("resident", "budget", "expected"),
    [
        ([], 200, ["text", "condition", "step", "decode"]),
        (["text", "step", "condition", "decode"], 105, []),
        (["other"], 200, ["text", "condition", "step", "decode"]),  # all fit beside it
        (["condition", "step", "decode"], 90, ["text", "decode"]),  # what is needed last leaves, and comes back
        (["other", "text"], 75, ["condition", "step", "decode"]),
        (["other"], 55, ["text", "condition", "step", "decode"]),
    ],
)
def test_loads_are_those_that_the_limit_makes_necessary(resident: list[str], budget: int, expected: list[str]) -> None:
    assert limit(budget).plan_loads(resident, PHASES) == expected


def test_the_least_limit_is_that_of_the_largest_phase() -> None:
    assert limit(0).least_bytes(PHASES) == 1000 + RESERVE_BYTES + 55
    assert limit(0, peak=1.5).least_bytes(PHASES) == 1000 + RESERVE_BYTES + 5 + 75
    assert limit(0).least_bytes((("condition", "step", "decode"),)) == 1000 + RESERVE_BYTES + 75


def test_larger_images_need_more_than_was_measured() -> None:
    calls = [Call("text", Stage.TEXT), Call("step", Stage.DENOISE, area=4.0), Call("decode", Stage.DECODE, area=0.5)]
    found = limit(100).extra_bytes(calls, {"text": 0, "step": 40, "decode": 0}.__getitem__)
    assert found == 3 * (50 - 40)
    assert limit(100).plan_loads(["other"], PHASES, found) == ["text", "condition", "step", "decode"]
    assert limit(85).has_room(["text"], "step")
    assert not limit(85).has_room(["text"], "step", found)


def test_loading_counts_with_its_peak() -> None:
    assert limit(80).has_room(["text"], "step")
    assert not limit(80, peak=1.1).has_room(["text"], "step")


def test_what_is_not_needed_leaves_first_and_then_what_is_needed_last() -> None:
    assert choose_victim(["a", "b", "c", "d"], keep=["a"], later=["c", "d"]) == "b"
    assert choose_victim(["c", "a", "d"], keep=["a"], later=["c", "d"]) == "d"
    assert choose_victim(["a"], keep=["a"], later=[]) is None


def test_phases_follow_the_stages() -> None:
    calls = [
        Call("router/router_encoder/encode", Stage.ROUTE),
        Call("a/text_encoder/encode", Stage.TEXT),
        Call("a/text_encoder_2/encode", Stage.TEXT),
        Call("a/unet/condition", Stage.TEXT),
        Call("a/unet/step@64x64", Stage.DENOISE, times=4),
        Call("a/vae/decode", Stage.DECODE),
    ]
    router, *names = (call.engine for call in calls)
    assert find_phases(calls, 1) == ((router,), (names[0], names[1]), (names[2], names[3]), (names[4],))
    assert find_phases(calls, 2) == ((router,), (names[0], names[1]), (names[2], names[3], names[4]))
