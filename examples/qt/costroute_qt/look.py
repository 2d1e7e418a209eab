"""Colours, light and dark, and the style of every widget."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QApplication


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One set of colours."""

    page: str
    card: str
    sunk: str
    line: str
    edge: str
    text: str
    muted: str
    accent: str
    on_accent: str
    tint: str
    bad: str


LIGHT = Look(
    page="#f6f4f0", card="#fffefc", sunk="#eae7e1", line="#dedad3", edge="#a39c91", text="#1d1b18", muted="#625d55",
    accent="#0b6e69", on_accent="#ffffff", tint="#e2f0ee", bad="#a3341f",
)  # fmt: skip
DARK = Look(
    page="#151413", card="#1f1e1c", sunk="#2a2826", line="#35322f", edge="#6b665e", text="#ece8e1", muted="#aaa398",
    accent="#63cdc1", on_accent="#06221f", tint="#173431", bad="#f0927c",
)  # fmt: skip


def look_of(palette: QPalette) -> Look:
    """The colours in use, for widgets that paint themselves."""
    return DARK if palette.window().color().lightness() < 128 else LIGHT


def apply_look(app: QApplication, is_dark: bool) -> None:
    """Give the whole application light or dark colours."""
    look = DARK if is_dark else LIGHT
    app.setStyle("Fusion")
    app.setPalette(_palette(look))
    app.setStyleSheet(_sheet(look))


def _palette(look: Look) -> QPalette:
    palette, role = QPalette(), QPalette.ColorRole
    colours = {
        role.Window: look.page, role.Base: look.card, role.AlternateBase: look.sunk, role.Button: look.card,
        role.WindowText: look.text, role.Text: look.text, role.ButtonText: look.text, role.PlaceholderText: look.muted,
        role.Highlight: look.accent, role.HighlightedText: look.on_accent, role.Accent: look.accent, role.Link: look.accent,
        role.ToolTipBase: look.card, role.ToolTipText: look.text, role.Mid: look.line, role.Dark: look.edge,
    }  # fmt: skip
    for each, colour in colours.items():
        palette.setColor(each, QColor(colour))
    for each in (role.WindowText, role.Text, role.ButtonText):
        palette.setColor(QPalette.ColorGroup.Disabled, each, QColor(look.edge))
    return palette


def _sheet(look: Look) -> str:
    return f"""
    QMenuBar {{ background: {look.page}; padding: 2px 8px; }}
    QMenuBar::item {{ padding: 4px 10px; border-radius: 5px; }}
    QMenuBar::item:selected, QMenu::item:selected {{ background: {look.tint}; color: {look.text}; }}
    QMenu {{ background: {look.card}; border: 1px solid {look.line}; padding: 4px; }}
    QMenu::item {{ padding: 5px 26px 5px 14px; border-radius: 5px; }}
    QLabel[role="heading"] {{ font-weight: 600; }}
    QLabel[role="muted"] {{ color: {look.muted}; }}
    QLabel[role="time"] {{ font-size: 20pt; font-weight: 600; }}
    QLabel[role="candidate"] {{ font-size: 12pt; font-weight: 600; }}
    QFrame#choice {{ background: {look.tint}; border-radius: 10px; }}
    QFrame#choice[fits="false"] {{ background: {look.sunk}; }}
    QFrame#choice[fits="false"] QLabel[role="candidate"] {{ color: {look.bad}; }}
    QFrame#message {{ background: {look.card}; border: 1px solid {look.bad}; border-radius: 10px; }}
    QPlainTextEdit, QLineEdit {{
        background: {look.card}; border: 1px solid {look.edge}; border-radius: 8px; padding: 6px 8px;
        selection-background-color: {look.accent}; selection-color: {look.on_accent};
    }}
    QPlainTextEdit:focus, QLineEdit:focus {{ border: 2px solid {look.accent}; padding: 5px 7px; }}
    QPushButton {{
        background: {look.card}; border: 1px solid {look.edge}; border-radius: 8px; padding: 6px 14px; min-height: 20px;
    }}
    QPushButton:hover {{ background: {look.sunk}; }}
    QPushButton:focus {{ border: 2px solid {look.accent}; padding: 5px 13px; }}
    QPushButton:disabled {{ color: {look.edge}; border-color: {look.line}; background: {look.page}; }}
    QPushButton#generate {{
        background: {look.accent}; color: {look.on_accent}; border: 2px solid {look.accent}; font-weight: 600; padding: 8px 14px;
    }}
    QPushButton#cancel {{ padding: 8px 14px; border-width: 2px; }}
    QPushButton#generate:focus {{ border-color: {look.text}; }}
    QPushButton#generate:disabled {{ background: {look.sunk}; color: {look.muted}; border-color: {look.sunk}; }}
    QToolButton {{ border: none; background: transparent; color: {look.muted}; padding: 3px; border-radius: 5px; }}
    QToolButton:hover, QToolButton:focus {{ color: {look.text}; background: {look.sunk}; }}
    QTreeWidget {{ background: {look.card}; border: 1px solid {look.line}; border-radius: 8px; padding: 2px; outline: 0; }}
    QTreeWidget::item {{ padding: 3px 2px; }}
    QTreeWidget::item:selected {{ background: {look.tint}; color: {look.text}; }}
    QHeaderView::section {{ background: {look.card}; color: {look.muted}; border: none; padding: 4px; }}
    QListWidget {{ background: transparent; border: none; outline: 0; }}
    QListWidget::item {{ border-radius: 8px; padding: 4px; border: 2px solid transparent; color: {look.muted}; }}
    QListWidget::item:hover {{ background: {look.sunk}; }}
    QListWidget::item:selected {{ background: {look.tint}; border-color: {look.accent}; color: {look.text}; }}
    QSlider::groove:horizontal {{ height: 6px; border-radius: 3px; background: {look.line}; }}
    QSlider::sub-page:horizontal {{ height: 6px; border-radius: 3px; background: {look.accent}; }}
    QSlider::handle:horizontal {{
        background: {look.card}; border: 2px solid {look.accent}; width: 18px; height: 18px; margin: -8px 0; border-radius: 11px;
    }}
    QSlider::handle:horizontal:focus {{ background: {look.accent}; }}
    QProgressBar {{ border: none; border-radius: 3px; background: {look.line}; max-height: 6px; }}
    QProgressBar::chunk {{ border-radius: 3px; background: {look.accent}; }}
    QScrollBar:vertical {{ width: 10px; background: transparent; }}
    QScrollBar:horizontal {{ height: 10px; background: transparent; }}
    QScrollBar::handle {{ background: {look.edge}; border-radius: 3px; min-width: 30px; min-height: 30px; margin: 2px; }}
    QScrollBar::add-line, QScrollBar::sub-line {{ width: 0; height: 0; }}
    QToolTip {{ background: {look.card}; color: {look.text}; border: 1px solid {look.line}; padding: 5px; }}
    """
