"""Opening and closing runtimes on real engines: progress, cancelling, what is shared, and that nothing stays open."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt import CancelledError, ConfigError, EngineError, OpenEvent, Runtime
from costroute_rt.engines.backends.shared import open_count
from costroute_rt.engines.store.store import Store
from tests import gated_backend

pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")

ENGINES = ["tiny/text_encoder/encode", "tiny/turbo/step", "tiny/base/condition", "tiny/base/guided_step", "tiny/vae/decode"]
PROMPT = "a red house by a lake"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """A store with the tiny bundle's engines."""
    home = tmp_path_factory.mktemp("home")
    Runtime.open(tiny_bundle, home=home, threads=1, build=True, preload=False).close()
    return home


@pytest.fixture
def opened(tiny_bundle: Path, store: Path) -> Callable[..., Runtime]:
    """Opens a runtime on the built engines."""
    return lambda **options: Runtime.open(tiny_bundle, **{"home": store, "threads": 1, **options})


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Every test ends with the threads, files, processes and engines with which it began."""
    before = whats_open()
    yield
    gc.collect()
    assert whats_open() == before


def whats_open() -> tuple[list[str], int, list[str], int]:
    """Threads, number of open files, child processes and open engines."""
    threads = sorted(thread.name for thread in threading.enumerate())
    files = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    return threads, files, children.read_text().split() if children.exists() else [], open_count()


def steps(events: list[OpenEvent]) -> list[tuple[str, str | None]]:
    """Stage and engine of each step that was reported, in order."""
    return list(dict.fromkeys((event.stage, event.engine) for event in events if event.done < event.total))


def check_counts(events: list[OpenEvent], total: int) -> None:
    """The total is the same in all events, and `done` grows to it and reaches it in the last event only."""
    assert {event.total for event in events} == {total}
    done = [event.done for event in events]
    assert done == sorted(done)
    assert (done.index(total), events[-1].remaining_s) == (len(done) - 1, 0.0)


def test_a_first_opening_reports_builds_measurements_loads_and_runs(tiny_bundle: Path, tmp_path: Path) -> None:
    events: list[OpenEvent] = []
    Runtime.open(tiny_bundle, home=tmp_path, threads=1, build=True, progress=events.append).close()
    check_counts(events, 5 + 6 + 5 + 5)
    found = steps(events)
    assert found[:11] == [*(("build", name) for name in ENGINES), *(("measure", name) for name in ENGINES), ("measure", None)]
    assert [stage for stage, _ in found[11:]] == ["load"] * 5 + ["warm_up"] * 5
    assert {engine for stage, engine in found[11:]} == set(ENGINES)
    assert next(event for event in events if event.done == 1).remaining_s is not None


def test_an_opening_without_a_build_reports_loads_and_runs_with_the_measured_times(opened: Callable[..., Runtime]) -> None:
    events: list[OpenEvent] = []
    opened(progress=events.append).close()
    check_counts(events, 10)
    assert events[0].remaining_s is not None
    assert events[0].remaining_s > 0


def test_an_opening_that_has_nothing_to_do_reports_that_it_is_done(opened: Callable[..., Runtime]) -> None:
    events: list[OpenEvent] = []
    opened(progress=events.append, preload=False).close()
    assert [(event.done, event.total, event.fraction) for event in events] == [(0, 0, 1.0)]


def test_preload_reports_and_can_be_cancelled(opened: Callable[..., Runtime]) -> None:
    events: list[OpenEvent] = []
    with opened(preload=False) as runtime:
        with pytest.raises(CancelledError):
            runtime.preload(progress=lambda event: event.done < 2)
        assert open_count() == 2
        runtime.preload(progress=events.append)
        assert runtime.generate(PROMPT, seed=1).timings.swap_ms == 0
    check_counts(events, 10)


def test_a_background_build_on_an_empty_store_reports_the_engines_it_starts_with(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, events = tmp_path / "gate", list[OpenEvent]()
    gate.mkdir()
    monkeypatch.setenv(gated_backend.GATE, str(gate))
    monkeypatch.setattr("costroute_rt.engines.building.background.COMMAND", gated_backend.COMMAND)
    gated_backend.install(monkeypatch.setattr)
    options: dict[str, Any] = {"home": tmp_path / "home", "backend": "gated", "threads": 1, "background_build": True}
    with Runtime.open(tiny_bundle, **options, progress=events.append) as runtime:
        assert runtime.building is not None
        assert (runtime.building.done, runtime.building.total) == (0, 5)
    check_counts(events, 21)

    def stop(event: OpenEvent) -> bool:
        return event.stage != "warm_up"

    with pytest.raises(CancelledError):  # after the builder has started: it ends, too
        Runtime.open(tiny_bundle, **options, progress=stop)


@pytest.mark.parametrize("way", ["false", "event", "error", "interrupt"])
def test_an_opening_can_be_stopped_at_each_step_and_continues_from_there(tiny_bundle: Path, tmp_path: Path, way: str) -> None:
    """Stopped at its first event, then at the first of the next kind of step, and so on, until nothing is left to stop."""
    stages, before = ["build", "build", "measure", "load", "warm_up", "done"], whats_open()
    errors = {"false": CancelledError, "event": CancelledError, "error": ZeroDivisionError, "interrupt": KeyboardInterrupt}
    for index, stage in enumerate(stages):
        cancel, seen = threading.Event(), 0

        def progress(event: OpenEvent) -> bool | None:
            nonlocal seen
            now = "done" if event.done == event.total else event.stage
            if now != stage or event.done < index % 2:  # noqa: B023
                return None
            seen += 1
            if way == "error":
                raise ZeroDivisionError
            if way == "interrupt":
                raise KeyboardInterrupt
            if way == "event":
                cancel.set()  # noqa: B023
                if stage == "done":  # noqa: B023  (too late: nothing is left to cancel)
                    raise CancelledError
                return None
            return False

        with pytest.raises(errors[way]):
            Runtime.open(tiny_bundle, home=tmp_path, threads=1, build=True, progress=progress, cancel=cancel)
        assert seen == 1
        assert whats_open() == before
        assert not list((tmp_path / "engines").glob(".*"))
        assert len(Store.open(tmp_path).engines()) == (0 if index == 0 else 1 if index == 1 else 5)
    events: list[OpenEvent] = []
    Runtime.open(tiny_bundle, home=tmp_path, threads=1, build=True, progress=events.append).close()
    assert {event.stage for event in events} == {"load", "warm_up"}


@pytest.mark.parametrize("preload", [False, True])
def test_a_cancelled_opening_opens_nothing(opened: Callable[..., Runtime], preload: bool) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        opened(cancel=cancel, preload=preload)


def test_an_old_callback_of_three_arguments_is_a_config_error_before_anything_is_done(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes one OpenEvent"):
        Runtime.open(tiny_bundle, home=tmp_path / "new", build=True, progress=lambda engine, index, total: None)  # type: ignore[arg-type,misc]
    assert not (tmp_path / "new").exists()


def test_an_opening_that_fails_half_way_leaves_nothing(opened: Callable[..., Runtime], tmp_path: Path, store: Path) -> None:
    import shutil

    home = shutil.copytree(store, tmp_path / "home")

    def remove_decoder(event: OpenEvent) -> None:
        if event.stage == "load" and event.done == 2:
            shutil.rmtree(next(each for each in Store.open(home).engines() if each.key.graph == "tiny/vae/decode").path)

    with pytest.raises(EngineError, match="tiny/vae/decode"):
        opened(home=home, progress=remove_decoder)


def test_an_interrupt_while_an_engine_is_loaded_leaves_nothing(opened: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch) -> None:
    from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend

    left, real = [2], OnnxRuntimeBackend.open

    def open_or_interrupt(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(OnnxRuntimeBackend, "open", open_or_interrupt)
    with pytest.raises(KeyboardInterrupt):
        opened()


def test_a_second_runtime_of_the_bundle_shares_its_engines(opened: Callable[..., Runtime]) -> None:
    with opened() as first:
        want = first.generate(PROMPT, seed=3).pixels
        assert open_count() == 5
        with opened() as second:
            assert open_count() == 5
            np.testing.assert_array_equal(second.generate(PROMPT, seed=3).pixels, want)
        assert open_count() == 5
        np.testing.assert_array_equal(first.generate(PROMPT, seed=3).pixels, want)
        third = opened()
    with third:  # outlives the one that opened the engines
        assert open_count() == 5
        np.testing.assert_array_equal(third.generate(PROMPT, seed=3).pixels, want)
    assert open_count() == 0


def test_runtimes_that_share_engines_draw_at_the_same_time(opened: Callable[..., Runtime]) -> None:
    with opened() as first, opened() as second:
        want, found = first.generate(PROMPT, seed=3).pixels, dict[int, list[Any]]()

        def draw(number: int, runtime: Runtime) -> None:
            found[number] = [runtime.generate(PROMPT, seed=3).pixels for _ in range(5)]

        threads = [threading.Thread(target=draw, args=each) for each in enumerate((first, second, first, second))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [np.array_equal(each, want) for number in range(4) for each in found[number]] == [True] * 20


def test_engines_that_were_built_again_are_not_shared(
    opened: Callable[..., Runtime], tiny_bundle: Path, store: Path, tmp_path: Path
) -> None:
    import shutil

    from costroute_rt.engines.backends.setup import Setup
    from costroute_rt.engines.building.build import build_engines
    from costroute_rt.engines.bundle.bundle import Bundle

    home = shutil.copytree(store, tmp_path / "home")
    with opened(home=home):
        build_engines(Bundle.open(tiny_bundle), Store.open(home), ["tiny/vae/decode"], Setup(threads=1), force=True)
        with opened(home=home):
            assert open_count() == 6


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of this process in /proc")
def test_opening_and_closing_again_and_again_keeps_no_memory(opened: Callable[..., Runtime]) -> None:
    sizes = []
    for _ in range(20):
        with opened(progress=lambda event: None) as runtime:
            runtime.generate(PROMPT, seed=1, candidate="tiny-turbo@1")
        assert open_count() == 0
        sizes.append(resident_mb())
    assert sizes[-1] - sizes[4] < 5, sizes


def resident_mb() -> float:
    """Resident memory of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
