"""The prompt syntax of AUTOMATIC1111's web UI: weights in brackets, and BREAK.

    (word)       weight 1.1; brackets inside brackets multiply
    (word:1.3)   weight 1.3
    [word]       weight 1 / 1.1
    \\( \\) \\[ \\] \\\\  the characters themselves
    BREAK        what follows begins a new chunk

A bracket that is never closed counts as closed at the end, one that was never opened is text. BREAK works inside brackets too, where the
web UI reads it as a word. AND is a word. Prompt editing, [a:b:0.5], and alternation, [a|b], are refused: they would need other text states
at each step.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from costroute_rt.error import PromptError

Piece = tuple[str, float]
"""A text and its weight."""
Sections = tuple[tuple[Piece, ...], ...]
"""The pieces between one BREAK and the next; at least one section, which may be empty."""

LARGEST_WEIGHT = 10.0
_ROUND, _SQUARE = 1.1, 1 / 1.1
_DEEPEST = 100
"""Brackets that may be open at once, so that the time grows with the length of the text alone."""
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
_TOKEN = re.compile(rf"\\(?P<escaped>[()\[\]\\]?)|:\s*(?P<weight>{_NUMBER})\s*\)|[()\[\]:]|[^\\()\[\]:]+")
_TIME = re.compile(rf"\s*{_NUMBER}\s*")
_BREAK = re.compile(r"\bBREAK\b")
_SHOWN = 40
_PLAIN = "or have the prompt taken literally (plain_prompt)"


def parse_prompt(text: str) -> Sections:
    """The pieces of a prompt with their weights, -10 to 10, by section; neighbours of equal weight are one piece.

    Raises PromptError for prompt editing and alternation, for larger weights, and for more than 100 open brackets.
    """
    parser = _Parser(text)
    for token in _TOKEN.finditer(text):
        parser.read(token)
    return parser.finish()


def strip_syntax(text: str) -> str:
    """The words of a prompt without brackets, weights and BREAK; raises PromptError as `parse_prompt`."""
    return " ".join("".join(piece for piece, _ in section).strip() for section in parse_prompt(text)).strip()


@dataclass(slots=True)
class _Part:
    """A text with the weight known so far; None in the place of BREAK."""

    text: str | None
    weight: float = 1.0


@dataclass(slots=True)
class _Bracket:
    part: int
    """Number of parts before it."""
    position: int
    """In the prompt, of the first character inside."""
    has_bar: bool = False


@dataclass(slots=True)
class _Parser:
    text: str
    parts: list[_Part] = field(default_factory=list)
    round: list[_Bracket] = field(default_factory=list)
    """Those that are open."""
    square: list[_Bracket] = field(default_factory=list)

    def read(self, token: re.Match[str]) -> None:
        found, weight = token[0], token["weight"]
        if token["escaped"] is not None:
            self.parts.append(_Part(token["escaped"]))
        elif found in ("(", "["):
            self._open(self.round if found == "(" else self.square, token.end())
        elif self.round and (weight is not None or found == ")"):
            self._multiply(self.round.pop(), _ROUND if weight is None else float(weight))
        elif self.square and found == "]":
            self._close_square(token.start())
        else:
            self._add(found)

    def _open(self, brackets: list[_Bracket], position: int) -> None:
        if len(self.round) + len(self.square) >= _DEEPEST:
            raise PromptError(f"the prompt has more than {_DEEPEST} brackets inside one another: remove some, {_PLAIN}")
        brackets.append(_Bracket(len(self.parts), position))

    def _close_square(self, end: int) -> None:
        bracket = self.square.pop()
        inside = self.text[bracket.position : end]
        _, colon, last = inside.rpartition(":")
        if bracket.has_bar or (colon and _TIME.fullmatch(last)):
            shown = inside if len(inside) <= _SHOWN else f"{inside[:_SHOWN]}..."
            what = "alternation" if bracket.has_bar else "prompt editing"
            raise PromptError(
                f"the prompt has {what}, [{shown}], which is not supported: write one of the texts, \\[ for a bracket, {_PLAIN}"
            )
        self._multiply(bracket, _SQUARE)

    def _add(self, text: str) -> None:
        if "|" in text and self.square and (not self.round or self.square[-1].position > self.round[-1].position):
            self.square[-1].has_bar = True
        first, *others = _BREAK.split(text)
        self.parts.append(_Part(first.rstrip() if others else first))
        for index, other in enumerate(others, 1):
            self.parts.append(_Part(None))
            self.parts.append(_Part(other.lstrip() if index == len(others) else other.strip()))

    def _multiply(self, bracket: _Bracket, factor: float) -> None:
        for part in self.parts[bracket.part :]:
            part.weight *= factor

    def finish(self) -> Sections:
        for bracket in self.round:
            self._multiply(bracket, _ROUND)
        for bracket in self.square:
            self._multiply(bracket, _SQUARE)
        sections: list[list[Piece]] = [[]]
        for part in self.parts:
            if part.text is None:
                sections.append([])
            elif part.text:
                _append(sections[-1], part.text, part.weight)
        return tuple(tuple(section) for section in sections)


def _append(section: list[Piece], text: str, weight: float) -> None:
    """Add a piece, joined with the one before if their weights are equal."""
    if not (math.isfinite(weight) and abs(weight) <= LARGEST_WEIGHT):
        most, shown = f"{LARGEST_WEIGHT:g}", text.strip()[:_SHOWN]
        raise PromptError(f"the prompt gives {shown!r} the weight {weight:.4g}: use weights from -{most} to {most}, {_PLAIN}")
    if section and section[-1][1] == weight:
        text = section.pop()[0] + text
    section.append((text, weight))
