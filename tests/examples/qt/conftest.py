"""The Qt example without a screen, over a runtime with fake engines whose calls a test can hold."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PySide6.QtWidgets", reason="the Qt example: pip install -r examples/qt/requirements.txt", exc_type=ImportError)

from PySide6.QtCore import QCoreApplication, QEventLoop, QSettings
from PySide6.QtWidgets import QApplication

from costroute_qt.bridge import Bridge
from costroute_qt.history import History, keep
from costroute_qt.look import apply_look
from costroute_qt.window import Window
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.runtime import Runtime
from tests.runtime.fakes import FakeDevice, open_fake_runtime

PATIENCE_S = 60.0
"""After so long a test fails instead of waiting on."""


def wait_until(is_true: Callable[[], Any], what: str) -> None:
    """Let the window work until something is true."""
    end = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < end, f"{what}: not within {PATIENCE_S:g} s"
        QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents, 20)
        QCoreApplication.processEvents()


@dataclass
class Desk:
    """A window, and what is behind it."""

    window: Window
    device: FakeDevice
    folder: Path
    calls: list[str] = field(default_factory=list)
    """The engines that were called."""

    @property
    def rows(self) -> int:
        return self.window.history.count()

    def hold_at(self, engine: str) -> Callable[[], None]:
        """Make the next call of an engine wait; returns what lets it go on."""
        gate = threading.Event()

        def wait(name: str) -> None:
            if name == engine:
                assert gate.wait(PATIENCE_S)

        self.device.on_call.append(wait)
        return gate.set

    def generate(self) -> None:
        """Generate an image from start to end."""
        rows = self.rows
        self.window.controls.generate_button.click()
        wait_until(lambda: self.rows == rows + 1 and self.window.generate_action.isEnabled(), "an image in the history")


@pytest.fixture(scope="session")
def app() -> QApplication:
    found = QApplication.instance() or QApplication(["test"])
    assert isinstance(found, QApplication)
    apply_look(found, is_dark=False)
    return found


Opening = Callable[[Callable[[Any], None], threading.Event], Runtime]
MakeWindow = Callable[[Opening], Window]


@pytest.fixture
def make_window(app: QApplication, tmp_path: Path) -> Iterator[MakeWindow]:
    """Opens windows over runtimes, and closes them after the test; no thread may be left then."""
    windows, before = list[Window](), set(threading.enumerate())

    def make(open_runtime: Opening) -> Window:
        folder = tmp_path / "images"
        bridge, history = Bridge(open_runtime, lambda result: keep(result, folder)), History(folder)
        window = Window(bridge, history, QSettings(str(tmp_path / "settings.ini"), QSettings.Format.IniFormat))
        windows.append(window)
        window.show()
        window.open()
        history.load()
        return window

    yield make
    for window in windows:
        window.close()
        window.history.close_reader()
        window.bridge.close()
    wait_until(lambda: set(threading.enumerate()) <= before, "no thread is left")


@pytest.fixture
def desk(make_window: MakeWindow, tiny_bundle: Path, tmp_path: Path) -> Desk:
    """A window that is ready."""
    device = open_fake_runtime(Bundle.open(tiny_bundle))
    window = make_window(lambda progress, cancel: device.runtime)
    desk = Desk(window, device, tmp_path / "images")
    device.on_call.append(desk.calls.append)
    wait_until(lambda: window.generate_action.isEnabled() and window.controls.choice.name.text(), "the first route")
    return desk
