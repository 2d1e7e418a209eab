"""The Qt example as its user meets it: type, slide, generate, cancel, look back, save, close."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PySide6.QtWidgets", reason="the Qt example: pip install -r examples/qt/requirements.txt", exc_type=ImportError)

from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QColor, QGuiApplication, QImage
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from costroute_qt.look import apply_look, look_of
from costroute_qt.self_test import SelfTest
from costroute_qt.time_slider import END
from costroute_qt.words import explain, show_time
from costroute_rt import BudgetError, CancelledError, EngineError, OpenEvent, Reason, read_settings
from costroute_rt.runtime import Runtime
from tests.examples.qt.conftest import Desk, MakeWindow, wait_until

BASE_STEP, TURBO_STEP = "tiny/base/guided_step", "tiny/turbo/step"


def type_prompt(desk: Desk, text: str) -> None:
    edit = desk.window.controls.prompt
    edit.selectAll()
    QTest.keyClicks(edit, text)


def test_the_route_follows_what_is_typed_and_how_far_the_slider_is(desk: Desk) -> None:
    controls = desk.window.controls
    assert controls.choice.name.text() == "base@8"
    assert "0.9" in controls.choice.why.text()
    desk.window.controls.time.set_ms(120)
    wait_until(lambda: controls.choice.name.text().startswith("turbo"), "a faster candidate")
    assert controls.time_shown.text() == "120 ms"
    asked = list[str]()
    desk.window.bridge.routed.connect(lambda route: asked.append(route.prompt))
    type_prompt(desk, "a lake")
    wait_until(lambda: asked and asked[-1] == "a lake", "the route of what was typed")


def test_keys_move_the_slider_to_its_end_which_is_no_limit(desk: Desk) -> None:
    time = desk.window.controls.time
    QTest.keyClick(time.slider, Qt.Key.Key_End)
    assert (time.slider.value(), time.max_ms) == (END, None)
    assert desk.window.controls.time_shown.text() == "no limit"
    before = time.slider.value()
    QTest.keyClick(time.slider, Qt.Key.Key_PageDown)
    assert time.slider.value() < before
    assert time.max_ms is not None
    wait_until(lambda: show_time(time.max_ms or 0) in time.slider.accessibleDescription(), "a spoken time")


def test_a_press_on_a_candidate_of_the_plot_sets_the_time_that_it_needs(desk: Desk) -> None:
    controls = desk.window.controls
    option = next(each for each in controls.time.plot._options if each.candidate.name == "base@4")
    QTest.mouseClick(controls.time.plot, Qt.MouseButton.LeftButton, pos=controls.time.plot._point(option).toPoint())
    wait_until(lambda: controls.choice.name.text() == "base@4", "the candidate that was pressed")


def test_a_time_in_which_nothing_fits_is_explained_and_a_button_allows_more(desk: Desk) -> None:
    choice = desk.window.controls.choice
    desk.window.controls.time.set_ms(3)
    wait_until(choice.allow.isVisible, "a way out")
    assert "turbo@1" in choice.why.text()
    desk.window.controls.generate_button.click()
    wait_until(desk.window.message.isVisible, "a message")
    assert "Nothing can be made in 3 ms" in desk.window.message.text.text()
    desk.window.message.help.click()
    wait_until(lambda: choice.name.text() == "turbo@1", "a candidate that fits")
    desk.generate()
    assert not desk.window.message.isVisible()


def test_an_image_comes_with_a_preview_after_each_step_and_a_countdown(desk: Desk) -> None:
    go_on, seen, steps = desk.hold_at(BASE_STEP), list[Any](), list[int]()
    canvas = desk.window.canvas
    desk.window.bridge.accepted.connect(lambda route: seen.append(canvas.left_ms))
    desk.window.bridge.stepped.connect(lambda event, preview: steps.append(event.index))
    QTest.keyClick(desk.window, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    wait_until(lambda: seen, "the route of the image")
    assert seen[0] > 0
    assert not desk.window.controls.generate_button.isEnabled()
    assert desk.window.controls.cancel_button.isEnabled()
    go_on()
    wait_until(lambda: desk.rows == 1, "an image in the history")
    assert steps == list(range(1, 9))
    assert canvas.image is not None
    assert not canvas._ticking.isActive()
    assert "base@8" in desk.window.facts.text()
    assert "seed" in desk.window.facts.text()


def test_cancel_ends_the_image_and_the_next_one_can_start(desk: Desk) -> None:
    go_on, accepted = desk.hold_at(BASE_STEP), list[Any]()
    desk.window.bridge.accepted.connect(accepted.append)
    desk.window.controls.generate_button.click()
    wait_until(lambda: accepted, "the image has begun")
    QTest.keyClick(desk.window, Qt.Key.Key_Escape)
    go_on()
    wait_until(desk.window.generate_action.isEnabled, "ready again")
    assert (desk.rows, desk.window.message.isVisible(), desk.window.canvas.image) == (0, False, None)
    assert desk.calls.count(BASE_STEP) <= 1
    desk.generate()


def test_the_history_is_a_folder_that_the_next_window_reads(desk: Desk, make_window: MakeWindow) -> None:
    controls = desk.window.controls
    type_prompt(desk, "a lake at night")
    controls.seed.setText("7")
    desk.generate()
    type_prompt(desk, "birds")
    controls.seed.clear()
    controls.time.set_ms(None)
    desk.generate()
    (desk.folder / "of somebody else.png").write_bytes(b"no image")
    files = sorted(desk.folder.glob("* *.png"))
    assert [read_settings(each)["prompt"] for each in files if "else" not in each.name] == ["a lake at night", "birds"]
    window = make_window(lambda progress, cancel: desk.device.runtime)
    wait_until(lambda: window.history.count() == 2, "both images")
    item = window.history.item(1)
    QTest.mouseClick(window.history.viewport(), Qt.MouseButton.LeftButton, pos=window.history.visualItemRect(item).center())
    found = window.controls
    assert (found.prompt.toPlainText(), found.seed.text(), found.time.max_ms) == ("a lake at night", "7", 1000.0)
    assert window.canvas.image == QImage(str(files[0]))
    found.prompt.undo()
    assert found.prompt.toPlainText() != "a lake at night"


def test_the_same_prompt_and_seed_make_the_same_image(desk: Desk) -> None:
    desk.window.controls.seed.setText("5")
    desk.generate()
    desk.generate()
    first, second = (QImage(str(path)) for path in sorted(desk.folder.glob("*.png")))
    assert first == second


def test_a_copy_keeps_the_settings(desk: Desk, tmp_path: Path) -> None:
    assert not desk.window.save_action.isEnabled()
    desk.generate()
    assert desk.window.save_action.isEnabled()
    desk.window.save_to(tmp_path / "copy.png")
    assert read_settings(tmp_path / "copy.png")["candidate"] == "base@8"
    desk.window.save_to(tmp_path / "no such folder/copy.png")
    assert "not saved" in desk.window.message.text.text()
    desk.window.copy()
    assert QGuiApplication.clipboard().image().size() == desk.window.canvas.image.size()  # type: ignore[union-attr]


def test_an_image_that_cannot_be_kept_is_still_shown(desk: Desk) -> None:
    desk.folder.write_text("in the way")
    desk.window.controls.generate_button.click()
    wait_until(desk.window.message.isVisible, "a message")
    assert "not kept" in desk.window.message.text.text()
    assert desk.window.canvas.image is not None
    assert not desk.window.save_action.isEnabled()


def test_the_first_start_shows_how_far_it_is_and_closing_ends_it(make_window: MakeWindow) -> None:
    events = [OpenEvent(stage="build", engine="x", done=1, total=4, share=0.5, elapsed_s=2.0, remaining_s=12.0)]

    def open_slowly(progress: Callable[[OpenEvent], None], cancel: threading.Event) -> Runtime:
        for event in events:
            progress(event)
        assert cancel.wait(60)
        raise CancelledError

    window = make_window(open_slowly)
    wait_until(lambda: window.preparing.bar.value() == 375, "progress")
    assert "12 s left" in window.preparing.text.text()
    assert not window.controls.generate_button.isEnabled()
    type_into = window.controls.prompt
    QTest.keyClicks(type_into, "a lake")
    assert type_into.toPlainText() == "a lake"


def test_what_keeps_the_runtime_from_opening_is_shown_and_can_be_tried_again(make_window: MakeWindow, desk: Desk) -> None:
    problems = [EngineError("the disk is full", reason=Reason.FULL)]

    def open_later(progress: Callable[[OpenEvent], None], cancel: threading.Event) -> Runtime:
        if problems:
            raise problems.pop()
        return desk.device.runtime

    window = make_window(open_later)
    wait_until(window.message.isVisible, "the problem")
    assert "disk is full" in window.message.text.text()
    window.message.help.click()
    wait_until(window.generate_action.isEnabled, "ready after all")


def test_closing_while_an_image_is_made_leaves_no_thread(desk: Desk) -> None:
    accepted = list[Any]()
    desk.window.bridge.accepted.connect(accepted.append)
    desk.window.controls.generate_button.click()
    wait_until(lambda: accepted, "the image has begun")
    desk.window.close()
    desk.window.bridge.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("costroute-qt_")]


def test_what_was_set_is_there_again_in_the_next_window(desk: Desk, make_window: MakeWindow) -> None:
    type_prompt(desk, "a starry night")
    desk.window.controls.time.set_ms(250)
    desk.window.close()
    window = make_window(lambda progress, cancel: desk.device.runtime)
    assert (window.controls.prompt.toPlainText(), window.controls.time.max_ms) == ("a starry night", 250)


@pytest.mark.parametrize("is_dark", [False, True])
def test_colours_are_those_of_the_system(desk: Desk, app: QApplication, is_dark: bool) -> None:
    apply_look(app, is_dark)
    try:
        wait_until(lambda: desk.window.grab().toImage().pixelColor(QPoint(2, 400)) == QColor(look_of(app.palette()).page), "the colour")
        assert (desk.window.palette().window().color().lightness() < 128) == is_dark
    finally:
        apply_look(app, False)


def test_the_table_lists_every_candidate_and_sets_its_time(desk: Desk) -> None:
    choice = desk.window.controls.choice
    choice.toggle.click()
    assert choice.table.isVisible()
    assert choice.table.topLevelItemCount() == 4
    choice.table.itemActivated.emit(choice.table.topLevelItem(0), 0)
    wait_until(lambda: choice.name.text().startswith("turbo"), "the candidate that was chosen")


def test_every_field_and_button_has_a_name_for_screen_readers(desk: Desk) -> None:
    controls = desk.window.controls
    for field in (controls.time.slider, controls.time.plot, desk.window.canvas, desk.window.history, controls.choice.table):
        assert field.accessibleName()
    labels = {label.buddy() for label in controls.findChildren(type(controls.time_shown)) if label.buddy() is not None}
    assert {controls.prompt, controls.negative, controls.seed} <= labels


def test_the_self_test_generates_one_image_whatever_the_time(make_window: MakeWindow, desk: Desk, tmp_path: Path) -> None:
    desk.window.controls.time.set_ms(3)
    desk.window.close()
    may_open = threading.Event()

    def open_later(progress: Callable[[OpenEvent], None], cancel: threading.Event) -> Runtime:
        assert may_open.wait(60)
        return desk.device.runtime

    test = SelfTest(make_window(open_later), tmp_path / "image.png")
    may_open.set()
    wait_until(lambda: test.exit_code == 0, "the image")
    assert read_settings(tmp_path / "image.png")["seed"] == 7


def test_times_and_errors_in_plain_words() -> None:
    assert [show_time(ms) for ms in (0.4, 340, 2400, 24_000, 185_000)] == ["0 ms", "340 ms", "2.4 s", "24 s", "3 min 5 s"]
    busy = BudgetError(100, "turbo@1", 400, reason=Reason.QUEUE, queue_ms=300)
    assert explain(busy) == (
        "Nothing can be made in 100 ms now: the fastest candidate, turbo@1, needs 400 ms, 300 ms of it to wait for other images. "
        "Try again soon, or allow more time."
    )
    assert explain(MemoryError()).startswith("There is not enough memory")
    assert "KeyError" in explain(KeyError("x"))
