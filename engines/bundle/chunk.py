"""Chunks: how a long prompt is divided into parts that a text encoder can read, by the rules of AUTOMATIC1111's web UI."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Token = tuple[int, float]
"""A token's number and its weight."""
BACKTRACK = 20
"""Tokens that may be moved to the next chunk, so that a chunk ends at a comma; the web UI's comma_padding_backtrack."""


class Chunks:
    """The chunks of one prompt, filled token by token."""

    def __init__(self, length: int, comma: int | None, most: int) -> None:
        """length: tokens of a chunk. comma: the token of a comma. most: chunks that are kept.

        With `most` = 1 nothing can be moved to a next chunk: sections follow one another, and the end is cut wherever it is.
        """
        self._length, self._comma, self._most = length, comma, most
        self._done: list[list[Token]] = []
        self._open: list[Token] = []
        self._after_comma = 0
        """Position after the last comma of the open chunk; 0 if it has none."""

    def fill(self, sections: Iterable[Iterable[tuple[Sequence[int], float]]]) -> tuple[list[list[Token]], bool]:
        """The chunks, and whether tokens were left out.

        sections: the prompt between one BREAK and the next, as tokens with their weight. A break closes a chunk, empty ones too.
        """
        for index, section in enumerate(sections):
            if index and self._most > 1:
                self._close()
            for ids, weight in section:
                for token in ids:
                    self._add(token, weight)
        if self._open or not self._done:
            self._close()
        return self._done[: self._most], any(self._done[self._most :])

    def _add(self, token: int, weight: float) -> None:
        if len(self._open) == self._length:
            moved: list[Token] = []
            is_near = self._after_comma > 0 and self._length - self._after_comma < BACKTRACK
            if is_near and token != self._comma and self._most > 1:
                moved = self._open[self._after_comma :]
                del self._open[self._after_comma :]
            self._close()
            self._open = moved
        self._open.append((token, weight))
        if token == self._comma:
            self._after_comma = len(self._open)

    def _close(self) -> None:
        self._done.append(self._open)
        self._open, self._after_comma = [], 0
