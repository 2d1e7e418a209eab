"""Text of others, made safe to print: in it, no character can control a terminal, start a new line or turn the direction of writing."""

from __future__ import annotations

import re

_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)
"""Control characters, marks that reorder text or are invisible, line and paragraph separators, and unpaired surrogates.

The joiners U+200C and U+200D stay: Persian and emoji are written with them.
"""
_OTHERS = re.compile(_CONTROLS.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f", 1))
_BREAKS = re.compile(r"[\t\n\v\f\r]+")


def printable(text: str, *, keep_lines: bool = False) -> str:
    """The text with `\\x1b` for an escape character, and the like. keep_lines: leave line feeds as they are."""
    return (_OTHERS if keep_lines else _CONTROLS).sub(_escape, text)


def one_line(text: str) -> str:
    """The text in one line, safe to print: line breaks and tabs become blanks."""
    return printable(_BREAKS.sub(" ", text))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
