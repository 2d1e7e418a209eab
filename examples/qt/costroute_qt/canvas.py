"""The image, and while it is generated its preview, the steps and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, QTimer
from PySide6.QtGui import QColor, QImage, QLinearGradient, QPainter, QPainterPath, QPaintEvent
from PySide6.QtWidgets import QWidget

from costroute_qt.look import look_of
from costroute_qt.words import show_time

RADIUS = 14.0
FRAME_MS = 60
"""Between two states of the countdown."""
EMPTY = "Describe a picture on the left and press Generate."


class Canvas(QWidget):
    """Shows one image as large as there is room."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._image: QImage | None = None
        self._text, self._share, self._end_s = "", 0.0, 0.0
        self._ticking = QTimer(self, interval=FRAME_MS)
        self._ticking.timeout.connect(self.update)
        self.empty_text = EMPTY
        self.setMinimumSize(260, 260)
        self.setAccessibleName("Image")

    def sizeHint(self) -> QSize:
        return QSize(640, 640)

    @property
    def image(self) -> QImage | None:
        """What is shown: a finished image, a preview, or nothing."""
        return self._image

    @property
    def left_ms(self) -> float:
        """Milliseconds to go, counted down from what was last said."""
        return max(0.0, (self._end_s - self._clock()) * 1000)

    def show_image(self, image: QImage | None, description: str) -> None:
        """A finished image."""
        self._image = image
        self.setAccessibleDescription(description)
        self.show_rest()

    def show_progress(self, text: str, share: float, left_ms: float, preview: QImage | None = None) -> None:
        """Another step is done; without a preview, what was shown stays."""
        self._text, self._share, self._end_s = text, share, self._clock() + left_ms / 1000
        self._image = preview or self._image
        self._ticking.start()
        self.update()

    def show_rest(self) -> None:
        """Nothing is being generated any more."""
        self._text = ""
        self._ticking.stop()
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter, look = QPainter(self), look_of(self.palette())
        painter.setRenderHints(QPainter.RenderHint.Antialiasing | QPainter.RenderHint.SmoothPixmapTransform)
        box = self._box()
        frame = QPainterPath()
        frame.addRoundedRect(box, RADIUS, RADIUS)
        painter.setClipPath(frame)
        painter.fillRect(box, QColor(look.sunk))
        if self._image is not None:
            painter.drawImage(box, self._image)
        elif not self._text:
            painter.setPen(QColor(look.muted))
            painter.drawText(box.adjusted(24, 24, -24, -24), Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, self.empty_text)
        if self._text:
            self._paint_meter(painter, box)

    def _paint_meter(self, painter: QPainter, box: QRectF) -> None:
        """A dark edge at the bottom, with the step on the left, the countdown on the right and a bar below."""
        band = QRectF(box.left(), box.bottom() - 84, box.width(), 84)
        shade = QLinearGradient(band.topLeft(), band.bottomLeft())
        shade.setColorAt(0, QColor(0, 0, 0, 0))
        shade.setColorAt(0.6, QColor(0, 0, 0, 170))
        shade.setColorAt(1, QColor(0, 0, 0, 200))
        painter.fillRect(band, shade)
        inner = band.adjusted(18, 30, -18, -16)
        painter.setPen(QColor("#ffffff"))
        painter.drawText(inner, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, self._text)
        font = painter.font()
        font.setPointSizeF(font.pointSizeF() * 1.25)
        font.setBold(True)
        painter.setFont(font)
        painter.drawText(inner, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, show_time(self.left_ms))
        bar = QRectF(band.left(), band.bottom() - 5, band.width(), 5)
        painter.fillRect(bar, QColor(255, 255, 255, 70))
        bar.setWidth(bar.width() * min(1.0, self._share))
        painter.fillRect(bar, QColor("#7fe0d4"))

    def _box(self) -> QRectF:
        """Where the image is: its shape, in the middle."""
        width, height = (1, 1) if self._image is None else (self._image.width(), self._image.height())
        scale = min(self.width() / width, self.height() / height)
        size = QPointF(width * scale, height * scale)
        return QRectF((self.width() - size.x()) / 2, (self.height() - size.y()) / 2, size.x(), size.y())
