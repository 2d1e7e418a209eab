"""Finished images: a folder of PNG files, each with the settings that made it, and a strip of their thumbnails."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QIcon, QImage, QImageReader, QPainter, QPaintEvent, QPixmap
from PySide6.QtWidgets import QListView, QListWidget, QListWidgetItem

from costroute_rt import ConfigError, OutputError, read_settings

if TYPE_CHECKING:
    from costroute_rt import Result

_log = logging.getLogger(__name__)

THUMBNAIL = 92
"""Pixels."""
MOST_SHOWN = 300
"""Of the newest; the folder keeps all."""
_PATH, _SETTINGS = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1


def keep(result: Result, folder: Path) -> Path:
    """Write a result into the folder, under a name that sorts by time and says what it shows; raises OutputError."""
    words = "-".join(re.findall(r"\w+", str(result.settings["prompt"]).lower())[:6])[:60]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(folder, error.strerror or str(error)) from error
    return result.save(folder / f"{datetime.now():%Y-%m-%d %H%M%S.%f} {words}.png")


class History(QListWidget):
    """The newest images of a folder. Choosing one, by mouse or with Enter, emits `chosen`."""

    chosen = Signal(object, object)
    """A path, and the settings of its image."""
    _found = Signal(object, object, object)

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="costroute-qt history")
        self._closing = threading.Event()
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setFlow(QListView.Flow.LeftToRight)
        self.setMovement(QListView.Movement.Static)
        self.setWrapping(False)
        self.setUniformItemSizes(True)
        self.setIconSize(QSize(THUMBNAIL, THUMBNAIL))
        self.setSpacing(2)
        self.setFixedHeight(THUMBNAIL + 58)
        self.setHorizontalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName("Finished images, newest first")
        self._found.connect(self._append)
        self.itemClicked.connect(self._choose)
        self.itemActivated.connect(self._choose)

    def load(self) -> None:
        """Read the folder, in a thread of its own; thumbnails appear as they are read."""
        self._reader.submit(self._read)

    def add(self, path: Path, settings: Mapping[str, Any], image: QImage) -> None:
        """A new image, in front."""
        self.insertItem(0, _make_item(path, settings, _shrink(image)))
        self.setCurrentRow(0)
        self.scrollToTop()

    def close_reader(self) -> None:
        """End the reading, and wait for it."""
        self._closing.set()
        self._reader.shutdown(cancel_futures=True)

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if not self.count():
            painter = QPainter(self.viewport())
            painter.setPen(self.palette().placeholderText().color())
            painter.drawText(self.viewport().rect(), Qt.AlignmentFlag.AlignCenter, "Finished images are kept here.")

    def _read(self) -> None:
        try:
            paths = sorted(self.folder.glob("*.png"), reverse=True)[:MOST_SHOWN]
        except OSError:
            return
        for path in paths:
            if self._closing.is_set():
                return
            try:
                settings = read_settings(path)
            except ConfigError:  # somebody else's file
                continue
            reader = QImageReader(str(path))
            reader.setScaledSize(reader.size().scaled(THUMBNAIL, THUMBNAIL, Qt.AspectRatioMode.KeepAspectRatio))
            image = reader.read()
            if image.isNull():
                _log.info("%s: %s", path, reader.errorString())
            else:
                self._found.emit(path, settings, image)

    def _append(self, path: Path, settings: Mapping[str, Any], image: QImage) -> None:
        if not any(self.item(row).data(_PATH) == path for row in range(self.count())):
            self.addItem(_make_item(path, settings, image))

    def _choose(self, item: QListWidgetItem) -> None:
        self.chosen.emit(item.data(_PATH), item.data(_SETTINGS))


def describe_settings(settings: Mapping[str, Any]) -> str:
    """The settings of an image in one line."""
    steps = settings.get("num_inference_steps")
    parts = [settings.get("candidate"), f"{steps} step{'' if steps == 1 else 's'}", f"seed {settings.get('seed')}"]
    return " · ".join([*map(str, parts), f"{settings.get('width')} × {settings.get('height')}"])


def _make_item(path: Path, settings: Mapping[str, Any], thumbnail: QImage) -> QListWidgetItem:
    icon, pixmap = QIcon(), QPixmap.fromImage(thumbnail)
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):  # or the selected one would be tinted
        icon.addPixmap(pixmap, mode)
    item = QListWidgetItem(icon, str(settings.get("candidate", "")).removeprefix(f"{settings.get('family')}-"))
    item.setToolTip(f"{settings.get('prompt')}\n{describe_settings(settings)}\n{path.name}")
    item.setData(Qt.ItemDataRole.AccessibleTextRole, str(settings.get("prompt")))
    item.setData(_PATH, path)
    item.setData(_SETTINGS, dict(settings))
    item.setSizeHint(QSize(THUMBNAIL + 20, THUMBNAIL + 34))
    return item


def _shrink(image: QImage) -> QImage:
    how = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    return image.scaled(QSize(THUMBNAIL, THUMBNAIL), *how)
