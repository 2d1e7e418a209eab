"""Commands run in this process on the tiny bundle, with engines built once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from costroute_rt import Runtime
from costroute_rt.cli.main import cli
from costroute_rt.engines.bundle.bundle import Bundle
from tests.runtime.fakes import FakeDevice, open_fake_runtime

Run = Callable[..., Result]


def invoke(*arguments: object, stdin: str | None = None) -> Result:
    """Runs `costroute-rt ARGUMENTS` and returns its exit code, stdout and stderr."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=stdin, prog_name="costroute-rt")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands in an empty folder."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return invoke


@pytest.fixture(scope="session")
def built_home(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COSTROUTE_HOME in which the tiny bundle's engines are built."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COSTROUTE_HOME", str(home))
        done = invoke("build-engines", "--bundle", tiny_bundle)
    assert done.exit_code == 0, done.output
    return home


@pytest.fixture
def built(built_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Points COSTROUTE_HOME at the built engines; for tests that leave them as they are."""
    monkeypatch.setenv("COSTROUTE_HOME", str(built_home))
    return built_home


@pytest.fixture
def gen(run: Run, built: Path, tiny_bundle: Path) -> Run:
    """`costroute-rt gen` on the tiny bundle."""
    return lambda *arguments, stdin=None: run("gen", "--bundle", tiny_bundle, *arguments, stdin=stdin)


@pytest.fixture
def fake(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """Commands run on engines and a clock that do not depend on the machine: turbo@1 takes 34 ms, turbo@2 54 ms.

    Pauses pass on that clock. A command closes the runtime, so a test that runs several calls `fake_device` before each.
    """
    return fake_device(tiny_bundle, monkeypatch)


def fake_device(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """A device that commands use from now on instead of the machine."""
    device = open_fake_runtime(Bundle.open(tiny_bundle, verify=False))
    monkeypatch.setattr(Runtime, "open", lambda *_, **__: device.runtime)
    times = SimpleNamespace(perf_counter=device.clock, sleep=lambda seconds: device.clock.pass_ms(1000 * seconds))
    monkeypatch.setattr("costroute_rt.cli.gen.time", times)
    return device
