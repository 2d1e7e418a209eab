"""A build killed at any moment leaves a store that loads and builds."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import open_engine
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.family.calls import engine_names
from tests.engines.conftest import build

KILLS = 20
GRAPHS = ("tiny/base/guided_step", "tiny/turbo/step")
BUILDER = """
import sys
from costroute_rt.engines.building.build import build_engines
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.store.store import Store
build_engines(Bundle.open(sys.argv[1]), Store.open(sys.argv[2]), sys.argv[3:], Setup(threads=1), force=True)
"""
NURSERY = f"""
import os, sys
import costroute_rt.engines.building.profile, onnxruntime
for line in sys.stdin:
    child = os.fork()
    if not child:
        exec({BUILDER!r})
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Forks a builder for each line it reads, which spares it the start of Python; says its number, and how it ended."""


class Nursery:
    """Starts builders quickly."""

    def __init__(self, bundle: Path, home: Path) -> None:
        command = [sys.executable, "-W", "ignore", "-c", NURSERY, str(bundle), str(home), *GRAPHS]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self) -> int:
        """Start a builder; returns its process number."""
        assert self.process.stdin is not None
        self.process.stdin.write("build\n")
        self.process.stdin.flush()
        return self._read()

    def wait(self) -> int:
        """The exit code of the builder started last; negative for a signal."""
        return self._read()

    def _read(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


def time_build(nursery: Nursery) -> float:
    """Seconds that an undisturbed build takes."""
    nursery.start()
    begin = time.perf_counter()
    assert nursery.wait() == 0
    return time.perf_counter() - begin


@pytest.fixture
def nursery(tiny_bundle: Path, tmp_path: Path) -> Iterator[Nursery]:
    """Builders of the tiny bundle into tmp_path."""
    made = Nursery(tiny_bundle, tmp_path)
    yield made
    made.process.communicate(timeout=60)


@pytest.mark.skipif(os.name == "nt", reason="forks builders and kills them with SIGKILL, which Windows does not have")
def test_a_build_killed_at_any_moment_leaves_nothing_that_loads_wrong(nursery: Nursery, tiny_bundle: Path, tmp_path: Path) -> None:
    bundle, store = Bundle.open(tiny_bundle), Store.open(tmp_path)
    fastest_s = min(time_build(nursery) for _ in range(4))  # another process may have delayed one
    rng, endings = random.Random(0), []
    for _ in range(KILLS):
        builder = nursery.start()
        time.sleep(rng.uniform(0, fastest_s))
        with suppress(ProcessLookupError):
            os.kill(builder, signal.SIGKILL)
        endings.append(nursery.wait())
        assert all(found.is_good for found in store.verify())
        for stored in store.engines():
            assert store.find(stored.key) is not None
    assert endings.count(-signal.SIGKILL) > KILLS / 2
    assert set(endings) <= {-signal.SIGKILL, 0}
    build(bundle, store, Setup(threads=1), measure=False)
    for name in engine_names(bundle):
        open_engine(bundle, store, name, Setup(threads=1)).close()
    assert not list(store.folder.glob(".*"))


@pytest.mark.skipif(os.name == "nt", reason="limits the size of files with RLIMIT_FSIZE, which Windows does not have")
@pytest.mark.parametrize("limit_bytes", [0, 1000, 100_000, 800_000])
def test_a_file_size_limit_is_an_error_that_leaves_nothing(tiny_bundle: Path, tmp_path: Path, limit_bytes: int) -> None:
    limited = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, resource.RLIM_INFINITY))
from costroute_rt.error import StoreFullError
try:
    exec({BUILDER!r})
except StoreFullError:
    raise SystemExit(5)
"""
    command = [sys.executable, "-c", limited, str(tiny_bundle), str(tmp_path), *GRAPHS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 5, done.stderr
    store = Store.open(tmp_path)
    assert all(found.is_good for found in store.verify())
    assert not list(store.folder.glob(".*"))
