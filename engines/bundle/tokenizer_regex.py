"""Which regular expressions of a tokenizer are run: those whose search time cannot explode, whatever the text.

Searches backtrack. A part that repeats without limit multiplies the work by the text's length, and one that repeats in a group that repeats
raises it to a power. Allowed are repeated characters and classes, not repeated groups; two of them in a row only where nothing that could
fail follows them. The expressions of GPT-2, GPT-4, Llama, Qwen, DeepSeek and CLIP are of this kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_LONGEST, _DEEPEST, _MOST_CHOICES, _MOST_REPEATS, _LONGEST_REPEAT = 2000, 16, 64, 16, 1000
_OPENING = re.compile(r"\((\?:|\?>|\?[imsu-]{1,8}:|\?<?[=!]|(?!\?))")
_FLAGS = re.compile(r"\(\?[imsu-]{1,8}\)")
_ESCAPE = re.compile(r"\\([pP]\{\^?\w{1,40}\}|x[0-9a-fA-F]{2}|x\{[0-9a-fA-F]{1,8}\}|u[0-9a-fA-F]{4}|[dDwWsShHtnrfvaebBAzZ]|[^\w\s]|\s)")
_QUANTIFIER = re.compile(r"(?:([*+?])|\{(\d{1,5})?(,)?(\d{1,5})?\})[?+]?")


@dataclass(slots=True)
class _Steps:
    """What one alternative does, in order."""

    parts: list[str] = field(default_factory=list)
    """`many` for a part without a limit of repeats, `needed` for one that can fail."""
    choices: int = 1
    """Ways through its other parts."""


def check_regex(pattern: str) -> None:
    """Raises ValueError for an expression whose search could take very long, and for one that is not understood."""
    if len(pattern) > _LONGEST:
        raise ValueError(f"a regular expression of {len(pattern):,} characters")
    parser = _Parser(pattern)
    for steps in parser.alternatives(0):
        many = [place for place, part in enumerate(steps.parts) if part == "many"]
        is_slow = len(many) > 2 or (len(many) == 2 and "needed" in steps.parts[many[1] + 1 :])
        if is_slow or steps.choices > _MOST_CHOICES:
            raise parser.error("it could take very long")
    if parser.at < len(pattern):
        raise parser.error("a parenthesis too many")


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern, self.at = pattern, 0

    def error(self, problem: str) -> ValueError:
        shown = self.pattern if len(self.pattern) <= 80 else f"{self.pattern[:77]}..."
        return ValueError(f"the regular expression {shown!r} is not supported: {problem}")

    def alternatives(self, depth: int) -> list[_Steps]:
        """Up to the end, or to the parenthesis that closes the group."""
        if depth > _DEEPEST:
            raise self.error("its groups are nested too deeply")
        found = [_Steps()]
        while self.at < len(self.pattern) and self.pattern[self.at] != ")":
            if self.pattern[self.at] == "|":
                self.at += 1
                found.append(_Steps())
            elif flags := _FLAGS.match(self.pattern, self.at):
                self.at = flags.end()
            elif self.pattern[self.at] == "(":
                self._group(found[-1], depth)
            else:
                self._atom()
                self._repeat(found[-1])
        return found

    def _group(self, steps: _Steps, depth: int) -> None:
        opening = _OPENING.match(self.pattern, self.at)
        if opening is None:
            raise self.error("an unknown kind of group")
        self.at = opening.end()
        inner = self.alternatives(depth + 1)
        if self.at >= len(self.pattern):
            raise self.error("a parenthesis is missing")
        self.at += 1
        quantifier = _QUANTIFIER.match(self.pattern, self.at)
        if quantifier is not None:
            if quantifier[0] not in ("?", "?+", "??"):
                raise self.error("a group that repeats")
            self.at = quantifier.end()
            steps.choices *= 2
            self._no_quantifier()
        parts = [part for each in inner for part in each.parts]  # as if all were tried one after the other, which is never less work
        steps.parts += [part for part in parts if part == "many"] if quantifier else [*parts, "needed"]
        for each in inner:
            steps.choices *= each.choices
        steps.choices *= len(inner)

    def _atom(self) -> None:
        """One character, escape or class."""
        character = self.pattern[self.at]
        if character == "[":
            self._class()
        elif character == "\\":
            self._escape()
        elif character in "*+?{}":
            raise self.error("a quantifier without anything to repeat")
        else:
            self.at += 1

    def _escape(self) -> None:
        escape = _ESCAPE.match(self.pattern, self.at)
        if escape is None:
            raise self.error("an unknown escape")
        self.at = escape.end()

    def _class(self) -> None:
        depth, is_first = 0, False
        while self.at < len(self.pattern):
            character = self.pattern[self.at]
            if character == "\\":
                self._escape()
                is_first = False
                continue
            self.at += 1
            if character == "[":
                depth, is_first = depth + 1, True
                continue
            if character == "]":
                if is_first:
                    break
                depth -= 1
                if not depth:
                    return
            is_first = is_first and character == "^"
        raise self.error("a class that does not end")

    def _repeat(self, steps: _Steps) -> None:
        quantifier = _QUANTIFIER.match(self.pattern, self.at)
        if quantifier is None:
            steps.parts.append("needed")
            return
        self.at = quantifier.end()
        sign, least, comma, most = quantifier.groups()
        if not sign and least is None and most is None:
            raise self.error("a quantifier without numbers")
        low = {"*": 0, "?": 0, "+": 1}.get(sign, int(least or 0))
        high = {"?": 1}.get(sign) if sign else int(most) if most else None if comma else low
        if max(low, high or 0) > _LONGEST_REPEAT:
            raise self.error(f"more than {_LONGEST_REPEAT} repeats")
        if high is None or high - low > _MOST_REPEATS:
            steps.parts.append("many")
        else:
            steps.choices *= max(1, high - low + 1)
            steps.parts += ["needed"] if low else []
        self._no_quantifier()

    def _no_quantifier(self) -> None:
        if _QUANTIFIER.match(self.pattern, self.at):
            raise self.error("one quantifier after another")
