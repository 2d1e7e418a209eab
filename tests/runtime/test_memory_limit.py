"""A runtime with a limit of memory: on fake engines of known sizes, and real ones watched from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from costroute_rt import ConfigError, EngineError, Reason, Runtime
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.family.memory import RESERVE_BYTES, MemoryLimit
from tests.pools import write_other_bundle, write_pool_of
from tests.runtime.fakes import LOAD_MS, FakeDevice, open_fake_runtime
from tests.tiny_bundle import write_tiny_bundle

PROMPT = "a red house by a lake"
SIZES = {
    "tiny/text_encoder/encode": 30,
    "tiny/turbo/step": 40,
    "tiny/base/condition": 5,
    "tiny/base/guided_step": 60,
    "tiny/vae/decode": 20,
}
BASE = 100


@dataclass
class Memory:
    """What the fake process has: of every engine that is open, its size, and while one is loaded, its peak."""

    budget: int
    device: FakeDevice = field(init=False)
    most: int = 0
    loading: str | None = None

    @property
    def limit(self) -> MemoryLimit:
        return MemoryLimit(
            max_bytes=BASE + RESERVE_BYTES + self.budget, base_bytes=BASE, size_of=SIZES.__getitem__, peak_of=lambda name: SIZES[name] + 2
        )

    def note(self, name: str = "") -> None:
        """Called while an engine is loaded or run."""
        opened = [engine for engine in self.device.engines.values() if not engine.is_closed and engine.name != name]
        self.most = max(self.most, sum(SIZES[engine.name] for engine in opened) + (SIZES[name] + 2 if name else 0))


def open_limited(bundle: Bundle, budget: int, **options: Any) -> tuple[FakeDevice, Memory]:
    memory = Memory(budget)
    device = open_fake_runtime(bundle, preload=False, limit=memory.limit, **options)
    memory.device = device
    engines = device.resources.engines
    opening = engines._open_engine

    def open_engine(name: str) -> Any:
        memory.note(name)
        return opening(name)

    engines._open_engine = open_engine
    device.on_call.append(lambda _: memory.note())
    device.runtime.preload()
    return device, memory


@pytest.mark.parametrize("budget", [70, 90, 110, 200])
def test_the_limit_holds_and_images_are_the_same(bundle: Bundle, device: FakeDevice, budget: int) -> None:
    limited, memory = open_limited(bundle, budget)
    for name in ("turbo@2", "base@4", "turbo@1", "base@8"):
        expected = device.runtime.generate(PROMPT, candidate=name, seed=3, negative_prompt="snow")
        found = limited.runtime.generate(PROMPT, candidate=name, seed=3, negative_prompt="snow")
        assert (found.pixels == expected.pixels).all()
    assert 0 < memory.most <= budget


def test_predictions_hold_what_has_to_be_loaded(bundle: Bundle) -> None:
    limited, _ = open_limited(bundle, 70)
    loads = []
    for name in ("base@4", "base@4", "turbo@2", "turbo@2"):
        route = limited.runtime.route(PROMPT, candidate=name)
        result = limited.runtime.generate(PROMPT, candidate=name, seed=1)
        assert route.option.cost.swap_ms == pytest.approx(result.timings.swap_ms), name
        assert result.actual_ms == pytest.approx(result.predicted_ms, rel=0.03)
        loads.append(round(result.timings.swap_ms / LOAD_MS))
    assert loads == [2, 4, 2, 3]  # what is resident stays as long as there is room


def test_a_budget_of_time_counts_the_loads(bundle: Bundle) -> None:
    limited, _ = open_limited(bundle, 70)
    roomy, _ = open_limited(bundle, 1000)
    assert roomy.runtime.route(PROMPT, max_ms=230).chosen.name == "base@4"
    assert limited.runtime.route(PROMPT, max_ms=230).chosen.name == "turbo@2"


def test_a_candidate_that_cannot_fit_is_unfit_with_the_reason(bundle: Bundle) -> None:
    limited, memory = open_limited(bundle, 50)
    route = limited.runtime.route(PROMPT)
    assert (route.chosen.name, set(route.unfit)) == ("turbo@2", {"base@4", "base@8"})
    assert "max_memory" in route.unfit["base@4"]
    with pytest.raises(ConfigError, match="max_memory"):
        limited.runtime.generate(PROMPT, candidate="base@4")
    limited.runtime.generate(PROMPT, seed=1)
    assert memory.most <= 50


def test_several_images_keep_what_they_alternate_between(bundle: Bundle) -> None:
    limited, memory = open_limited(bundle, 70)
    assert set(limited.runtime.route(PROMPT, count=3).unfit) == {"base@4", "base@8"}  # steps and decoder alternate: 85 are needed
    result = limited.runtime.generate(PROMPT, candidate="turbo@1", count=3, seed=1)
    assert (len(result.pixels), memory.most <= 70) == (3, True)


def test_preloading_takes_what_fits_by_preference(bundle: Bundle) -> None:
    limited, _ = open_limited(bundle, 95)
    assert set(limited.resources.engines.resident()) == {"tiny/text_encoder/encode", "tiny/turbo/step", "tiny/vae/decode"}


def test_an_engine_that_another_request_took_away_comes_back(bundle: Bundle, device: FakeDevice) -> None:
    limited, memory = open_limited(bundle, 70)
    stream = limited.runtime.stream(PROMPT, candidate="base@4", seed=3)
    next(stream)
    limited.runtime.generate(PROMPT, candidate="turbo@2", seed=1)  # its engines take the place of the paused request's
    *_, result = stream
    assert (result.pixels == device.runtime.generate(PROMPT, candidate="base@4", seed=3).pixels).all()  # type: ignore[union-attr]
    assert memory.most <= 70


def test_requests_of_several_threads_stay_within_the_limit(bundle: Bundle) -> None:
    limited, memory = open_limited(bundle, 70)
    failures = []

    def work(name: str) -> None:
        try:
            for seed in range(3):
                limited.runtime.generate(PROMPT, candidate=name, seed=seed)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("base@4", "turbo@2", "turbo@1")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (failures, memory.most <= 70) == ([], True)


def test_what_the_rest_of_the_process_takes_counts(bundle: Bundle) -> None:
    device: FakeDevice
    taken = 0

    def used() -> int:
        return BASE + taken + sum(SIZES[engine.name] for engine in device.engines.values() if not engine.is_closed)

    limit = MemoryLimit(
        max_bytes=BASE + RESERVE_BYTES + 200, base_bytes=BASE, size_of=SIZES.__getitem__, peak_of=SIZES.__getitem__, used=used
    )
    device = open_fake_runtime(bundle, preload=False, limit=limit)
    device.runtime.generate(PROMPT, candidate="base@4", seed=1)
    assert len(device.resources.engines.resident()) == 4
    taken = RESERVE_BYTES + 130
    device.runtime.generate(PROMPT, candidate="turbo@2", seed=1)  # what is left does for one engine at a time
    assert len(device.resources.engines.resident()) <= 2
    taken = RESERVE_BYTES + 190
    with pytest.raises(EngineError, match="do not fit the limit") as caught:
        device.runtime.generate(PROMPT, candidate="base@4", seed=1)
    assert caught.value.reason is Reason.NO_MEMORY


@pytest.mark.parametrize(
    ("options", "named"),
    [({"max_memory_bytes": 0}, "above 0"), ({"max_memory_bytes": "1GB"}, "whole number"), ({"background_build": True}, "one of them")],
)
def test_what_makes_no_sense_is_refused(tiny_bundle: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Runtime.open(tiny_bundle, **{"max_memory_bytes": 1 << 30, **options})


CHILD = """
import json, sys
from costroute_rt import Runtime
pool, home, most = sys.argv[1:]
with Runtime.open(pool=pool, home=home, threads=1, max_memory_bytes=int(most) or None) as runtime:
    loads = []
    for name in ("tiny-base@4", "other-base@4", "tiny-turbo@1", "other-base@4"):
        loads.append(runtime.generate("a lake", candidate=name, seed=1).timings.swap_ms > 0)
    limit = runtime._resources.engines.limit
    print(json.dumps([loads, None if limit is None else limit.base_bytes]))
"""


def watch(pool: Path, home: Path, most: int) -> tuple[Any, int]:
    """What the child says, and the most memory that it had, watched from outside."""
    peak = 0
    with subprocess.Popen([sys.executable, "-c", CHILD, pool, home, str(most)], stdout=subprocess.PIPE, text=True) as child:
        status = Path(f"/proc/{child.pid}/status")
        while child.poll() is None:
            with suppress(OSError):
                found = [int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
                peak = max([peak, *found])
            time.sleep(0.002)
        assert child.stdout is not None
        said = child.stdout.read()
    assert child.returncode == 0
    return json.loads(said), peak


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of another process as Linux reports it")
def test_a_process_stays_within_its_limit(large_pool: tuple[Path, Path]) -> None:
    """Two models of 48 MB each, and a limit with room for one."""
    pool, home = large_pool
    (loads, base), free = watch(pool, home, 1 << 40)
    assert loads == [False] * 4
    limit = base + RESERVE_BYTES + 60_000_000
    assert free > limit
    (loads, _), peak = watch(pool, home, limit)
    assert loads[1::2] == [True, False]  # the other model, which stays beside the small one
    assert peak <= limit


@pytest.fixture(scope="module")
def large_pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pool of two models whose denoisers have 48 MB each, and a store with its engines."""
    folder = tmp_path_factory.mktemp("large")
    bundles = write_tiny_bundle(folder / "tiny", hidden=470).root, write_other_bundle(folder, hidden=470)
    pool = write_pool_of(folder / "pool", *bundles, candidates=["tiny-base@4", "other-base@4", "tiny-turbo@1"]).root
    with Runtime.open(pool=pool, home=folder / "home", threads=1, build=True, preload=False):
        return pool, folder / "home"
