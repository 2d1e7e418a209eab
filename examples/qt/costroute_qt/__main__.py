"""python -m costroute_qt: the window, or with --self-test one image through the window without a user."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QSettings, QStandardPaths, Qt
from PySide6.QtWidgets import QApplication

from costroute_qt.bridge import Bridge
from costroute_qt.history import History, keep
from costroute_qt.look import apply_look
from costroute_qt.self_test import SelfTest
from costroute_qt.window import Window

if TYPE_CHECKING:
    from costroute_rt import OpenEvent, Result, Runtime


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    app = QApplication([sys.argv[0]])
    app.setApplicationName("costroute-rt")
    _follow_system_colours(app)
    folder = options.folder or Path(QStandardPaths.writableLocation(QStandardPaths.StandardLocation.PicturesLocation)) / "costroute-rt"

    def open_runtime(progress: Callable[[OpenEvent], None], cancel: threading.Event) -> Runtime:
        from costroute_rt import Runtime

        return Runtime.open(
            options.bundle, pool=options.pool, backend=options.backend, home=options.store, build=True, progress=progress, cancel=cancel
        )

    def keep_result(result: Result) -> Path:
        return keep(result, folder)

    history, bridge = History(folder), Bridge(open_runtime, keep_result)
    window = Window(bridge, history, QSettings("costroute-rt", "qt" if options.self_test is None else "self-test"))
    test = None if options.self_test is None else SelfTest(window, options.self_test)
    window.show()
    window.open()
    history.load()
    try:
        code = app.exec()
    finally:
        window.hide()
        history.close_reader()
        bridge.close()
    return code if test is None else test.exit_code


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="costroute-qt", description="Text to image within a time budget.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--bundle", metavar="DIR", help="the model to open; without it, the one that ships with costroute-rt")
    which.add_argument("--pool", metavar="DIR", help="a pool of several models")
    parser.add_argument("--backend", default="auto", help="auto, onnxruntime, openvino, tensorrt or tensorrt-rtx")
    parser.add_argument("--store", metavar="DIR", help="where engines are kept; without it, in the user's cache directory")
    parser.add_argument("--folder", metavar="DIR", type=Path, help="where images are kept; without it, among the user's pictures")
    parser.add_argument("--self-test", metavar="FILE", type=Path, help="generate one image, write it to FILE and end")
    return parser.parse_args(arguments)


def _follow_system_colours(app: QApplication) -> None:
    hints = app.styleHints()

    def follow() -> None:
        apply_look(app, hints.colorScheme() == Qt.ColorScheme.Dark)

    hints.colorSchemeChanged.connect(follow)
    follow()


if __name__ == "__main__":
    raise SystemExit(main())
