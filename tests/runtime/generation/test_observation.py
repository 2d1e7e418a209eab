"""What a finished request teaches the cost model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.runtime.fakes import FakeDevice


def test_rows_that_replanning_left_out_are_added_to_the_observed_time(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were shortened runs on time, the margin would never grow and every run would be shortened."""
    seen = list[float]()
    monkeypatch.setattr(device.resources.costs, "observe", lambda *_, actual_ms: seen.append(actual_ms))
    device.slowdown["tiny/base/guided_step"] = 1.5
    result = device.runtime.generate("a red house", candidate="base@8", max_ms=430, seed=1)
    assert result.replanned > 0
    assert seen == pytest.approx([result.actual_ms + 75 * result.replanned])
    assert seen == pytest.approx([8 * 75 + 6 + 10])


def test_the_first_run_of_an_engine_after_loading_is_not_recorded(
    open_device: Callable[..., FakeDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    device, seen = open_device(preload=False), list[str]()
    monkeypatch.setattr(device.resources.costs, "record_call", lambda observed, call, ms: seen.append(call.engine))
    device.runtime.generate("a red house", candidate="turbo@2", seed=1)
    assert seen == []
    device.runtime.generate("a red house", candidate="turbo@2", seed=1)
    assert seen == ["tiny/text_encoder/encode", "tiny/turbo/step", "tiny/turbo/step", "tiny/vae/decode"]


def test_the_callers_time_is_no_part_of_what_is_observed(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    observe, seen = device.resources.costs.observe, list[tuple[int, float, float, float]]()

    def note(predicted: object, observed: object, *, actual_ms: float) -> None:
        seen.append((observed.rows, observed.row_overhead_ms, observed.request_overhead_ms, actual_ms))  # type: ignore[attr-defined]
        observe(predicted, observed, actual_ms=actual_ms)  # type: ignore[arg-type]

    monkeypatch.setattr(device.resources.costs, "observe", note)
    device.runtime.generate("a red house", candidate="base@4", seed=1, on_step=lambda event: device.clock.pass_ms(100))
    assert seen == [(4, pytest.approx(0), pytest.approx(0), pytest.approx(216))]
