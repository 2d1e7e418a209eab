"""What the user sets: the prompt, what to keep out, the seed and the time; and the route that follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QRegularExpression, Qt, QTimer, Signal
from PySide6.QtGui import QRegularExpressionValidator, QTextCursor
from PySide6.QtWidgets import (
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QToolButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)  # fmt: skip

from costroute_qt.time_slider import ROOM, TimeSlider
from costroute_qt.words import explain, sentence, show_quality, show_time

if TYPE_CHECKING:
    from costroute_rt import Route

PAUSE_MS = 80
"""Between a key and the question that follows from it."""
EXAMPLE = "a red house by a lake at sunset, snowy mountains behind"
LARGEST_SEED = 2**32 - 1


class Controls(QWidget):
    """The left side of the window. `changed` says that the route has to be asked for again."""

    changed = Signal()
    generate = Signal()

    def __init__(self, prompt: str, max_ms: float | None) -> None:
        super().__init__()
        self.prompt = PromptEdit(prompt)
        self.negative = QLineEdit(placeholderText="nothing", clearButtonEnabled=True)
        self.seed = QLineEdit(placeholderText="random", clearButtonEnabled=True)
        self.seed.setValidator(QRegularExpressionValidator(QRegularExpression(r"\d{0,10}")))
        self.time = TimeSlider(max_ms)
        self.time_shown = _label("", "time")
        self.choice = RouteCard()
        self.generate_button = QPushButton("Generate", objectName="generate")
        self.cancel_button = QPushButton("Cancel", objectName="cancel", enabled=False)
        self._pause = QTimer(self, singleShot=True, interval=PAUSE_MS)
        self._pause.timeout.connect(self.changed)
        self.prompt.textChanged.connect(self._pause.start)
        self.negative.textChanged.connect(self._pause.start)
        self.time.changed.connect(self._show_time)
        self.time.changed.connect(self._pause.start)
        self.choice.wanted.connect(self.time.set_ms)
        self.generate_button.clicked.connect(self.generate)
        self.seed.returnPressed.connect(self.generate)
        self.negative.returnPressed.connect(self.generate)
        self._lay_out()
        self._show_time()

    @property
    def options(self) -> dict[str, Any]:
        """What the route depends on, besides the prompt."""
        return {"max_ms": self.time.max_ms, "negative_prompt": self.negative.text().strip() or None}

    @property
    def seed_value(self) -> int | None:
        text = self.seed.text()
        return min(int(text), LARGEST_SEED) if text else None

    @property
    def prompt_text(self) -> str:
        """The prompt on one line; the example while there is none."""
        return " ".join(self.prompt.toPlainText().split()) or EXAMPLE

    def restore(self, settings: Mapping[str, Any]) -> None:
        """The settings of an image that was made before."""
        self.prompt.replace_text(str(settings.get("prompt", "")))
        self.negative.setText(str(settings.get("negative_prompt") or ""))
        self.seed.setText(str(settings.get("seed", "")))
        self.time.set_ms(settings.get("max_ms"))

    def show_route(self, route: Route | Exception) -> None:
        """The decision, or why there is none."""
        self.choice.show_route(route)
        if not isinstance(route, Exception):
            self.time.show_options(route.options, route.chosen.name, fits=route.option.fits)

    def _show_time(self) -> None:
        self.time_shown.setText("no limit" if self.time.max_ms is None else show_time(self.time.max_ms))

    def _lay_out(self) -> None:
        small = QGridLayout()
        for column, (text, field) in enumerate((("Keep out", self.negative), ("Seed", self.seed))):
            small.addWidget(_label(text, "heading", field), 0, column)
            small.addWidget(field, 1, column)
        small.setColumnStretch(0, 3)
        small.setColumnStretch(1, 2)
        head = QHBoxLayout()
        head.addWidget(_label("Time for one image", "heading", self.time.slider), 1, Qt.AlignmentFlag.AlignBottom)
        head.addWidget(self.time_shown)
        buttons = QHBoxLayout()
        buttons.addWidget(self.generate_button, 3)
        buttons.addWidget(self.cancel_button, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(20, 12, 14, 20)
        layout.setSpacing(10)
        layout.addWidget(_label("Prompt", "heading", self.prompt))
        layout.addWidget(self.prompt)
        layout.addLayout(small)
        layout.addSpacing(4)
        layout.addLayout(head)
        layout.addWidget(self.time)
        layout.addLayout(buttons)
        layout.addWidget(self.choice, 1)


class PromptEdit(QPlainTextEdit):
    """A few lines of text; Tab leaves it."""

    def __init__(self, text: str) -> None:
        super().__init__(text, placeholderText=EXAMPLE, tabChangesFocus=True)
        self.setFixedHeight(self.fontMetrics().lineSpacing() * 4 + 22)

    def replace_text(self, text: str) -> None:
        """Set the text such that undo brings back what was typed."""
        cursor = self.textCursor()
        cursor.select(QTextCursor.SelectionType.Document)
        cursor.insertText(text)


class RouteCard(QWidget):
    """Which candidate the prompt gets, why, and below it all the others."""

    wanted = Signal(float)
    """Set the time to so many milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.name, self.time = _label("", "candidate"), _label("", "candidate")
        self.why = QLabel(wordWrap=True)
        self.allow = QPushButton(visible=False)
        self.basis = _label("", "muted")
        self.basis.setWordWrap(True)
        self.toggle = QToolButton(checkable=True, toolButtonStyle=Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.table = QTreeWidget(visible=False, rootIsDecorated=False, allColumnsShowFocus=True, uniformRowHeights=True)
        self.table.setHeaderLabels(["Candidate", "Quality", "Time", "Why"])
        self.table.setAccessibleName("All candidates")
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.table.itemActivated.connect(lambda row: self.wanted.emit(row.data(0, Qt.ItemDataRole.UserRole)))
        self.toggle.toggled.connect(self._show_table)
        self.allow.clicked.connect(lambda: self.wanted.emit(self.allow.property("ms")))
        self.box = QFrame(objectName="choice")
        inside = QGridLayout(self.box)
        inside.setContentsMargins(14, 10, 14, 12)
        inside.addWidget(self.name, 0, 0)
        inside.addWidget(self.time, 0, 1, Qt.AlignmentFlag.AlignRight)
        inside.addWidget(self.why, 1, 0, 1, 2)
        inside.addWidget(self.allow, 2, 0, 1, 2, Qt.AlignmentFlag.AlignLeft)
        inside.setColumnStretch(0, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.box)
        layout.addWidget(self.basis)
        layout.addWidget(self.toggle, 0, Qt.AlignmentFlag.AlignLeft)
        layout.addWidget(self.table, 1)
        layout.addStretch()
        self.box.hide()
        self.toggle.hide()

    def show_route(self, route: Route | Exception) -> None:
        self.box.show()
        self.toggle.setVisible(not isinstance(route, Exception))
        if isinstance(route, Exception):
            self._set_fits(False)
            self.name.setText("No candidate")
            self.time.clear()
            self.basis.clear()
            self.why.setText(explain(route))
            self.allow.hide()
            return
        option = route.option
        fits = option.fits
        self._set_fits(fits)
        self.name.setText(option.candidate.name if fits else "Nothing is that fast")
        self.time.setText(f"≈ {show_time(option.ms)}" if fits else "")
        worth = f"Expected quality {show_quality(option.quality)} ± {show_quality(option.quality_error)}"
        fastest = f"The fastest, {option.candidate.name}, needs up to {show_time(option.p95_ms)}."
        self.why.setText(f"{worth}. {sentence(route.reason)}" if fits else fastest)
        self.allow.setVisible(not fits)
        self.allow.setProperty("ms", option.p95_ms * ROOM)
        self.allow.setText(f"Allow {show_time(option.p95_ms * ROOM)}")
        note = "" if route.judgement is None or not route.judgement.note else sentence(route.judgement.note)
        self.basis.setText(note)
        self.basis.setVisible(bool(note))
        self._fill(route)

    def _fill(self, route: Route) -> None:
        self.table.clear()
        for option in sorted(route.options, key=lambda each: each.p95_ms):
            row = QTreeWidgetItem([option.candidate.name, show_quality(option.quality), show_time(option.ms), sentence(option.why)])
            row.setData(0, Qt.ItemDataRole.UserRole, option.p95_ms * ROOM)
            row.setToolTip(3, sentence(option.why))
            row.setDisabled(not option.fits and option.candidate != route.chosen)
            self.table.addTopLevelItem(row)
            row.setSelected(option.candidate == route.chosen)
        for column in range(3):
            self.table.resizeColumnToContents(column)
        self._show_table(self.toggle.isChecked())

    def _show_table(self, is_open: bool) -> None:
        self.table.setVisible(is_open)
        self.toggle.setText(f"{'▾' if is_open else '▸'} All {self.table.topLevelItemCount()} candidates")

    def _set_fits(self, fits: bool) -> None:
        self.box.setProperty("fits", "true" if fits else "false")
        for widget in (self.box, self.name):
            widget.style().polish(widget)


def _label(text: str, role: str, buddy: QWidget | None = None) -> QLabel:
    label = QLabel(text)
    label.setProperty("role", role)
    if buddy is not None:
        label.setBuddy(buddy)
    return label
