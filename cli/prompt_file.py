"""Files of prompts, read line by line: what is no prompt in a line is that line's problem, and memory does not grow with the file."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, TextIO

MOST_CHARACTERS = 100_000
"""Of a line; longer ones are no prompts."""
MOST_SKIPPED = 100_000_000
"""Of the rest of a longer line; a device such as /dev/zero never ends one."""
STDIN = "-"
_COMMENT = re.compile(r"#+(\s|$)")
_INVALID = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8, as `surrogateescape` reads them."""
_UTF16 = ("\udcff\udcfe", "\udcfe\udcff")


@dataclass(frozen=True, slots=True)
class Line:
    """One line that holds a prompt."""

    number: int
    """From 1, counted over all lines of the file."""
    prompt: str
    problem: str | None = None
    """Why the line cannot be read as text; None if it can."""


class PromptFile:
    """An open file of prompts; iterating over it yields a Line for each line that is neither blank nor a comment."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name, self._stream = name, stream
        self.comments = 0
        """Lines read so far that are comments: # alone or followed by a space."""

    def __iter__(self) -> Iterator[Line]:
        for number, (text, is_cut) in enumerate(self._texts(), 1):
            if number == 1 and text.startswith(_UTF16):
                raise self._unreadable("a text file in UTF-8, not in UTF-16")
            prompt = text.removeprefix("\ufeff").strip()
            if _COMMENT.match(prompt):
                self.comments += 1
            elif prompt or is_cut:
                yield Line(number, prompt, _problem(prompt, is_cut))

    def _texts(self) -> Iterator[tuple[str, bool]]:
        """Each line, and whether it was cut because it is too long; raises ConfigError if the file cannot be read."""
        try:
            while text := self._stream.readline(MOST_CHARACTERS + 1):
                is_cut = rest = len(text) > MOST_CHARACTERS and not text.endswith("\n")
                skipped = 0
                while rest:
                    piece = self._stream.readline(MOST_CHARACTERS)
                    rest, skipped = bool(piece) and not piece.endswith("\n"), skipped + len(piece)
                    if skipped > MOST_SKIPPED:
                        raise self._unreadable(f"a text file, with lines of at most {MOST_CHARACTERS} characters")
                yield text, is_cut
        except OSError as error:
            raise self._unreadable(f"a file that can be read ({error.strerror or error})") from error

    def _unreadable(self, expected: str) -> Exception:
        from costroute_rt.error import ConfigError

        return ConfigError("--prompts", self.name, expected)

    def empty_error(self) -> Exception:
        """The error for a file without any prompt."""
        comments = f" (only {self.comments} comments: lines that start with '# ')" if self.comments else ""
        return self._unreadable(f"a file with at least one prompt{comments}")


@contextmanager
def open_prompts(path: str) -> Iterator[PromptFile]:
    """The file at `path`, or standard input for `-`; raises ConfigError if it cannot be opened."""
    with ExitStack() as stack:
        stream = io.TextIOWrapper(_open_binary(path, stack), encoding="utf-8-sig", errors="surrogateescape")
        stack.callback(stream.detach)  # standard input stays open
        yield PromptFile("standard input" if path == STDIN else path, stream)


def _open_binary(path: str, stack: ExitStack) -> BinaryIO:
    from costroute_rt.error import ConfigError

    if path == STDIN:
        if sys.stdin is None:  # standard input is closed
            raise ConfigError("--prompts", path, "a file, because standard input is closed")
        return sys.stdin.buffer
    try:
        return stack.enter_context(open(path, "rb"))
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise ConfigError("--prompts", path, f"a text file that can be read ({problem})") from error


def count_lines(path: str) -> int | None:
    """Number of lines of a regular file; None for anything else, because reading a pipe would use it up."""
    try:
        if path == STDIN or not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) or 1
    except (OSError, ValueError):
        return None


def _problem(prompt: str, is_cut: bool) -> str | None:
    if is_cut:
        return f"the line is longer than {MOST_CHARACTERS} characters"
    invalid = _INVALID.search(prompt)
    if invalid is None:
        return None
    return f"the line is not UTF-8: byte 0x{ord(invalid.group()) - 0xDC00:02X} at position {invalid.start()}"
