"""The window: controls on the left, the image and the history on the right."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QSettings, QSize, Qt, QUrl
from PySide6.QtGui import QAction, QCloseEvent, QDesktopServices, QGuiApplication, QImage, QKeySequence
from PySide6.QtWidgets import (
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)  # fmt: skip

from costroute_qt.bridge import Bridge
from costroute_qt.canvas import Canvas
from costroute_qt.controls import Controls
from costroute_qt.history import History, describe_settings
from costroute_qt.time_slider import ROOM
from costroute_qt.words import explain, show_left, show_time
from costroute_rt import BudgetError, CostrouteError

if TYPE_CHECKING:
    from costroute_rt import OpenEvent, Result, Route, StepEvent

USUAL_MS = 1000.0
STAGES = {"build": "Building", "measure": "Measuring", "load": "Loading", "warm_up": "Warming up"}
ABOUT = (
    "<p><b>costroute-rt</b> draws within the time that you give. Nothing leaves this computer.</p>"
    "<p>This window uses Qt and PySide6 under the LGPL, version 3; their libraries are files of their own and can be replaced. "
    "A shipped folder has the licences of everything inside in <i>THIRD_PARTY_LICENSES</i>.</p>"
)


class Window(QMainWindow):
    """Everything that a user does. It owns neither the bridge nor the folder's reader: `main` closes them when the window is gone."""

    def __init__(self, bridge: Bridge, history: History, settings: QSettings) -> None:
        super().__init__()
        self.bridge, self.history, self.settings = bridge, history, settings
        self.controls = Controls(str(settings.value("prompt", "")), _stored_ms(settings))
        self.canvas = Canvas()
        self.facts = QLabel(wordWrap=True, textInteractionFlags=Qt.TextInteractionFlag.TextSelectableByMouse)
        self.message = Message()
        self.preparing = Preparing()
        self._file: Path | None = None
        self._image: QImage | None = None
        self.setWindowTitle("costroute-rt")
        self._lay_out()
        self._make_actions()
        self._connect()
        self._restore_geometry()
        self._show_state()
        self.controls.prompt.setFocus()

    # What the runtime says

    def show_opening(self, event: OpenEvent) -> None:
        self.preparing.show_event(event)

    def show_opened(self) -> None:
        self.preparing.hide()
        self.message.hide()
        self._show_state()
        self.ask()

    def show_not_opened(self, error: Exception) -> None:
        self.preparing.hide()
        self.message.show_text(explain(error), "Try again", self.open)
        self._show_state()

    def show_accepted(self, route: Route) -> None:
        self.canvas.show_progress(f"Starting with {route.chosen.name}", 0.0, route.option.ms)

    def show_step(self, event: StepEvent, preview: QImage | None) -> None:
        share = event.elapsed_ms / max(1.0, event.elapsed_ms + event.remaining_ms)
        self.canvas.show_progress(f"Step {event.index} of {event.total}", share, event.remaining_ms, preview)

    def show_generated(self, result: Result, image: QImage, kept: Path | CostrouteError) -> None:
        budget = "" if result.met is None else f", within {show_time(result.route.max_ms or 0)}" if result.met else ", later than asked"
        taken = f"{show_time(result.actual_ms)}{budget}"
        self._show_image(image, result.settings, kept if isinstance(kept, Path) else None, taken)
        if isinstance(kept, Path):
            self.history.add(kept, result.settings, image)
        else:
            self.message.show_text(f"The image was generated, but not kept. {explain(kept)}")
        self._show_state()

    def show_not_generated(self, error: BaseException | None) -> None:
        self.canvas.show_image(self._image, self.canvas.accessibleDescription())
        if isinstance(error, BudgetError):
            enough = error.fastest_ms * ROOM
            self.message.show_text(explain(error), f"Allow {show_time(enough)}", lambda: self.controls.time.set_ms(enough))
        elif error is not None:
            self.message.show_text(explain(error))
        self._show_state()

    # What the user does

    def open(self) -> None:
        """Open the runtime, in the background."""
        self.message.hide()
        self.preparing.start()
        self.bridge.open()

    def ask(self) -> None:
        """Ask for the route of what is set now."""
        self.bridge.ask(self.controls.prompt_text, or_fastest=True, **self.controls.options)

    def generate(self) -> None:
        if not self.generate_action.isEnabled():
            return
        self.message.hide()
        self.canvas.show_progress("Starting", 0.0, self.controls.time.max_ms or 0.0)
        self.bridge.generate(self.controls.prompt_text, seed=self.controls.seed_value, **self.controls.options)
        self._show_state()

    def cancel(self) -> None:
        self.bridge.cancel()
        self.cancel_action.setEnabled(False)

    def restore(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Show an image of the history, with its settings."""
        image = QImage(str(path))
        if image.isNull():
            self.message.show_text(f"{path.name} cannot be read any more.")
            return
        self.controls.restore(settings)
        if not self.bridge.is_generating:
            self._show_image(image, settings, path)

    def save(self) -> None:
        """Ask for a name, and put a copy there."""
        if self._file is not None:
            name, _ = QFileDialog.getSaveFileName(self, "Save a copy", self._file.name, "PNG images (*.png)")
            if name:
                self.save_to(Path(name))

    def save_to(self, target: Path) -> None:
        """A copy of the image's file, which contains its settings."""
        assert self._file is not None
        try:
            shutil.copyfile(self._file, target)
        except (OSError, shutil.SameFileError) as error:
            self.message.show_text(f"The copy was not saved: {getattr(error, 'strerror', None) or error}.")

    def copy(self) -> None:
        if self._image is not None:
            QGuiApplication.clipboard().setImage(self._image)

    def show_folder(self) -> None:
        self.history.folder.mkdir(parents=True, exist_ok=True)
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.history.folder)))

    def closeEvent(self, event: QCloseEvent) -> None:
        self.settings.setValue("geometry", self.saveGeometry())
        self.settings.setValue("prompt", self.controls.prompt.toPlainText())
        self.settings.setValue("max_ms", self.controls.time.max_ms or 0.0)
        self.settings.sync()
        self.bridge.cancel()
        super().closeEvent(event)

    # How it is put together

    def _show_image(self, image: QImage, settings: Mapping[str, Any], file: Path | None, taken: str = "") -> None:
        self._image, self._file = image, file
        self.canvas.show_image(image, str(settings.get("prompt")))
        first = f"<b>{taken}</b> · " if taken else ""
        self.facts.setText(f"{first}{describe_settings(settings)}")
        self.facts.setToolTip(str(settings.get("prompt")))
        self._show_state()

    def _show_state(self) -> None:
        """What can be pressed now."""
        is_generating = self.bridge.is_generating
        self.generate_action.setEnabled(self.bridge.is_ready and not is_generating)
        self.controls.generate_button.setEnabled(self.generate_action.isEnabled())
        self.controls.generate_button.setText("Generating" if is_generating else "Generate" if self.bridge.is_ready else "Getting ready")
        self.cancel_action.setEnabled(is_generating)
        for action in (self.save_action, self.copy_action):
            action.setEnabled((self._file if action is self.save_action else self._image) is not None)

    def _connect(self) -> None:
        bridge = self.bridge
        for signal, slot in (
            (bridge.opening, self.show_opening), (bridge.opened, self.show_opened), (bridge.not_opened, self.show_not_opened),
            (bridge.routed, self.controls.show_route), (bridge.accepted, self.show_accepted), (bridge.stepped, self.show_step),
            (bridge.generated, self.show_generated), (bridge.not_generated, self.show_not_generated), (self.controls.changed, self.ask),
            (self.controls.time.changed, self.message.hide),
            (self.controls.generate, self.generate), (self.history.chosen, self.restore),
        ):  # fmt: skip
            signal.connect(slot)
        self.cancel_action.enabledChanged.connect(self.controls.cancel_button.setEnabled)
        self.controls.cancel_button.clicked.connect(self.cancel)

    def _make_actions(self) -> None:
        def add(menu: Any, text: str, keys: str, slot: Any) -> QAction:
            action = QAction(text, self)
            action.setShortcuts([QKeySequence(key) for key in keys.split()])
            action.triggered.connect(slot)
            menu.addAction(action)
            return action

        file, image, other = (self.menuBar().addMenu(name) for name in ("&File", "&Image", "&Help"))
        self.save_action = add(file, "&Save a copy…", "Ctrl+S", self.save)
        self.copy_action = add(file, "&Copy image", "Ctrl+Shift+C", self.copy)
        add(file, "Show &folder", "Ctrl+O", self.show_folder)
        file.addSeparator()
        add(file, "&Quit", "Ctrl+Q", self.close)
        self.generate_action = add(image, "&Generate", "Ctrl+Return Ctrl+Enter", self.generate)
        self.cancel_action = add(image, "&Cancel", "Esc", self.cancel)
        self.cancel_action.setEnabled(False)
        add(image, "Edit &prompt", "Ctrl+L", self.controls.prompt.setFocus)
        add(image, "Set &time", "Ctrl+T", self.controls.time.slider.setFocus)
        add(other, "&About", "F1", lambda: QMessageBox.about(self, "About", ABOUT))

    def _lay_out(self) -> None:
        show_folder = QPushButton("Show folder", clicked=self.show_folder)
        below = QHBoxLayout()
        below.addWidget(self.facts, 1)
        below.addWidget(show_folder)
        right = QVBoxLayout()
        right.setContentsMargins(14, 12, 20, 16)
        right.setSpacing(10)
        for widget, stretch in ((self.preparing, 0), (self.message, 0), (self.canvas, 1)):
            right.addWidget(widget, stretch)
        right.addLayout(below)
        right.addWidget(self.history)
        self.controls.setFixedWidth(384)
        both = QHBoxLayout()
        both.setContentsMargins(0, 0, 0, 0)
        both.setSpacing(0)
        both.addWidget(self.controls)
        both.addLayout(right, 1)
        middle = QWidget()
        middle.setLayout(both)
        self.setCentralWidget(middle)

    def _restore_geometry(self) -> None:
        geometry = self.settings.value("geometry")
        if geometry is None or not self.restoreGeometry(geometry):
            self.resize(QSize(1080, 860))


class Message(QFrame):
    """A problem in words, and perhaps a button that helps."""

    def __init__(self) -> None:
        super().__init__(objectName="message", visible=False)
        self.text = QLabel(wordWrap=True)
        self.text.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.help, self.dismiss = QPushButton(), QPushButton("Close", clicked=self.hide)
        self._remedy: Any = None
        self.help.clicked.connect(self._do)
        layout = QHBoxLayout(self)
        for widget in (self.text, self.help, self.dismiss):
            layout.addWidget(widget)

    def show_text(self, text: str, remedy: str = "", do: Any = None) -> None:
        self.text.setText(text)
        self.help.setText(remedy)
        self.help.setVisible(do is not None)
        self._remedy = do
        self.show()

    def _do(self) -> None:
        self.hide()
        self._remedy()


class Preparing(QFrame):
    """How far the model is ready: the first start builds it for this computer, later ones only load it."""

    def __init__(self) -> None:
        super().__init__(visible=False)
        self.text, self.bar = QLabel(), QProgressBar(textVisible=False, maximum=1000)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text)
        layout.addWidget(self.bar)

    def start(self) -> None:
        self.text.setText("Getting ready")
        self.bar.setValue(0)
        self.show()

    def show_event(self, event: OpenEvent) -> None:
        once = " for this computer, which is done once" if event.stage in ("build", "measure") else ""
        left = "" if event.remaining_s is None or event.remaining_s < 1 else f", {show_left(event.remaining_s)}"
        self.text.setText(f"{STAGES[event.stage]} the model{once}{left}")
        self.bar.setValue(round(event.fraction * 1000))


def _stored_ms(settings: QSettings) -> float | None:
    try:
        return float(str(settings.value("max_ms", USUAL_MS))) or None
    except ValueError:
        return USUAL_MS
