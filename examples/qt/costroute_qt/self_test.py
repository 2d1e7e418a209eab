"""One image through the window, without a user: for a build that has to show that it works."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication

from costroute_qt.window import Window
from costroute_qt.words import explain
from costroute_rt import CostrouteError

if TYPE_CHECKING:
    from costroute_rt import Result


class SelfTest(QObject):
    """Presses Generate when the window is ready, and quits when the image is kept."""

    def __init__(self, window: Window, target: Path) -> None:
        super().__init__()
        self.exit_code = 1
        self._window, self._target = window, target
        bridge = window.bridge
        bridge.opened.connect(self._generate)
        bridge.generated.connect(self._end)
        bridge.not_opened.connect(self._fail)
        bridge.not_generated.connect(self._fail)

    def _generate(self) -> None:
        self._window.controls.seed.setText("7")
        self._window.controls.time.set_ms(None)  # it is to work on a busy machine too
        self._window.generate()

    def _end(self, result: Result, image: QImage, kept: Path | CostrouteError) -> None:
        if not isinstance(kept, Path):
            self._fail(kept)
            return
        shutil.copyfile(kept, self._target)
        found = {"candidate": result.route.chosen.name, "ms": round(result.actual_ms), "width": image.width(), "kept": str(kept)}
        sys.stdout.write(json.dumps(found) + "\n")
        self.exit_code = 0
        QApplication.quit()

    def _fail(self, error: BaseException | None) -> None:
        sys.stderr.write(f"{'the image was cancelled' if error is None else explain(error)}\n")
        QApplication.quit()
