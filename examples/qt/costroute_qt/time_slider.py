"""The time slider, over a plot of what time buys: each candidate at the time that it needs, the better the higher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QHelpEvent, QMouseEvent, QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QSlider, QToolTip, QVBoxLayout, QWidget

from costroute_qt.look import look_of
from costroute_qt.words import show_quality, show_time

if TYPE_CHECKING:
    from costroute_rt import Option

END = 200
"""The last position of the slider: no limit."""
HANDLE = 22
"""Width of the slider's handle, as in its style; its middle shows the time."""
ROOM = 1.08
"""Time given beyond what a candidate needs: estimates change a little from one request to the next."""
NEAR = 12.0
"""Pixels from a point within which it is meant."""


class TimeScale:
    """From milliseconds to positions of the slider and back, on a logarithmic scale."""

    def __init__(self, low_ms: float = 50.0, high_ms: float = 5000.0) -> None:
        self.low_ms, self.high_ms = low_ms, high_ms

    def holding(self, needed: Sequence[float]) -> TimeScale:
        """A scale for candidates that need so long. It grows only, so that nothing moves while one types."""
        low, high = min(needed) * 0.7, max(needed) * 2
        return TimeScale(min(low, self.low_ms), max(high, self.high_ms))

    def position(self, ms: float | None) -> float:
        """0 to END; None is END."""
        if ms is None:
            return END
        share = math.log(max(ms, 1e-3) / self.low_ms) / math.log(self.high_ms / self.low_ms)
        return min(max(share, 0.0), 1.0) * (END - 1)

    def ms(self, position: int) -> float | None:
        """Two digits of milliseconds, or None for no limit."""
        if position >= END:
            return None
        return float(f"{self.low_ms * (self.high_ms / self.low_ms) ** (position / (END - 1)):.2g}")


class TimeSlider(QWidget):
    """The budget of an image, as the user sets it."""

    changed = Signal()
    """The user has set another time."""

    def __init__(self, max_ms: float | None) -> None:
        super().__init__()
        self._scale: TimeScale | None = None
        self._max_ms = max_ms
        self.plot = Plot(self)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, END)
        self.slider.setPageStep(END // 10)
        self.slider.setMinimumHeight(HANDLE + 4)
        self.slider.setAccessibleName("Time for one image")
        self.slider.valueChanged.connect(self._read)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.plot)
        layout.addWidget(self.slider)
        self._place()

    @property
    def max_ms(self) -> float | None:
        """Milliseconds; None means no limit."""
        return self._max_ms

    @property
    def scale(self) -> TimeScale:
        return self._scale or TimeScale()

    def set_ms(self, max_ms: float | None) -> None:
        """Set the time as the user would."""
        self._max_ms = None if max_ms is None else float(max(1, round(max_ms)))
        self._place()
        self.changed.emit()

    def show_options(self, options: Sequence[Option], chosen: str, *, fits: bool) -> None:
        """Draw what each candidate needs and gives for the prompt of today. fits: whether the chosen one does."""
        needed = [each.p95_ms for each in options]
        first = TimeScale(min(needed) * 0.7, max(needed) * 2) if needed else TimeScale()
        self._scale = self._scale.holding(needed) if self._scale is not None and needed else first
        self._place()
        self.plot.show_options(options, chosen)
        time = "no limit" if self._max_ms is None else show_time(self._max_ms)
        self.slider.setAccessibleDescription(f"{time}, {chosen}" if fits else f"{time}: nothing is that fast")

    def _place(self) -> None:
        self.slider.blockSignals(True)
        self.slider.setValue(round(self.scale.position(self._max_ms)))
        self.slider.blockSignals(False)
        self.plot.update()

    def _read(self, position: int) -> None:
        self._max_ms = self.scale.ms(position)
        self.plot.update()
        self.changed.emit()


class Plot(QWidget):
    """Quality over time, on the slider's own scale. Pressing a candidate sets the time that it needs; elsewhere, the time there."""

    def __init__(self, owner: TimeSlider) -> None:
        super().__init__()
        self._owner = owner
        self._options: Sequence[Option] = ()
        self._chosen = ""
        self.setMinimumHeight(96)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAccessibleName("What time buys: quality of each candidate over the time that it needs")

    def sizeHint(self) -> QSize:
        return QSize(320, 104)

    def show_options(self, options: Sequence[Option], chosen: str) -> None:
        self._options, self._chosen = options, chosen
        self.update()

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            found = self._nearest(QPointF(event.pos()))
            QToolTip.showText(event.globalPos(), "" if found is None else describe(found), self)
            return True
        return super().event(event)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        found = self._nearest(event.position())
        if found is not None:
            self._owner.set_ms(found.p95_ms * ROOM)
        else:
            self.mouseMoveEvent(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        share = (event.position().x() - HANDLE / 2) / max(1, self.width() - HANDLE)
        self._owner.slider.setValue(round(share * END))

    def paintEvent(self, event: QPaintEvent) -> None:
        if not self._options:
            return
        look, painter = look_of(self.palette()), QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        accent, edge, line = QColor(look.accent), QColor(look.edge), QColor(look.line)
        limit = self._x(self._owner.max_ms)
        frontier = self._frontier()
        painter.setClipRect(QRectF(0, 0, limit, self.height()))
        area = QPainterPath(frontier)
        area.lineTo(self.width(), self.height())
        area.lineTo(frontier.elementAt(0).x, self.height())
        painter.fillPath(area, QColor(look.tint))
        painter.setClipping(False)
        painter.setPen(QPen(edge, 1.5))
        painter.drawPath(frontier)
        painter.setPen(QPen(accent, 1.5, Qt.PenStyle.DashLine))
        painter.drawLine(QPointF(limit, 0), QPointF(limit, self.height()))
        painter.setPen(QPen(line, 1))
        painter.drawLine(QPointF(HANDLE / 2, self.height() - 0.5), QPointF(self.width() - HANDLE / 2, self.height() - 0.5))
        for option in sorted(self._options, key=lambda each: each.candidate.name == self._chosen):
            fits = self._owner.max_ms is None or option.p95_ms <= self._owner.max_ms
            is_chosen = option.candidate.name == self._chosen
            painter.setPen(QPen(QColor(look.card), 2))
            painter.setBrush(accent if is_chosen or fits else edge)
            painter.drawEllipse(self._point(option), *((7.5, 7.5) if is_chosen else (4.5, 4.5)))

    def _frontier(self) -> QPainterPath:
        """The best quality for each time, as a line of steps."""
        path, best = QPainterPath(), -math.inf
        for option in sorted(self._options, key=lambda each: (each.p95_ms, -each.quality)):
            if option.quality <= best:
                continue
            point = self._point(option)
            if best == -math.inf:
                path.moveTo(point.x(), self.height())
            else:
                path.lineTo(point.x(), path.currentPosition().y())
            path.lineTo(point)
            best = option.quality
        path.lineTo(self.width() - HANDLE / 2, path.currentPosition().y())
        return path

    def _nearest(self, place: QPointF) -> Option | None:
        def distance(option: Option) -> float:
            gap = self._point(option) - place
            return math.hypot(gap.x(), gap.y())

        found = min(self._options, key=distance, default=None)
        return found if found is not None and distance(found) <= NEAR else None

    def _point(self, option: Option) -> QPointF:
        qualities = [each.quality for each in self._options]
        low, high = min(qualities), max(qualities)
        deficit = (high - option.quality) / (high - low) if high > low else 0.25
        # The root spreads the good ones, which one chooses from, where one bad candidate would press them together.
        return QPointF(self._x(option.p95_ms), 12 + math.sqrt(deficit) * (self.height() - 24))

    def _x(self, ms: float | None) -> float:
        return HANDLE / 2 + self._owner.scale.position(ms) / END * (self.width() - HANDLE)


def describe(option: Option) -> str:
    """A candidate in two lines."""
    worth = f"quality {show_quality(option.quality)} ± {show_quality(option.quality_error)}"
    return f"{option.candidate.name}\n{worth}, about {show_time(option.ms)}, at most {show_time(option.p95_ms)}"
