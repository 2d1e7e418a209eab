"""Reading CSV files: compressed or not, with or without a byte order mark, as spreadsheets and people write them.

Files of anybody are read: regular files alone, of bounded size, also when they are decompressed. Texts that a spreadsheet would run as a
formula are written with an apostrophe before them, which is removed when a table that labelling wrote is read.

Commas, semicolons or tabs separate the fields (a first line `sep=;` names the separator). Column names are found whatever their case and
the blanks around them; columns without a name and rows without a value are left out.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import NoReturn

from costroute_rt.error import LabelError, Reason
from costroute_rt.regular_file import open_regular

LARGEST_NUMBER = 1e12
"""Largest score and cost of a table, which leaves room for squares and sums in float32."""
_SEPARATORS = (",", ";", "\t", "|")
_EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_PLAIN_NAME = re.compile(r"[\w.@+-]+")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
_LONGEST_SHOWN = 200
MARK = "fingerprint"
"""A column that only labelling writes: it distinguishes our tables from others."""
MOST_CHARACTERS, LONGEST_LINE, MOST_LINES = 256 << 20, 1 << 20, 3_000_000
_FORMULA = re.compile("'*[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")
"""How a cell begins that a spreadsheet runs as a formula, and one that was escaped for that reason."""


@contextmanager
def opened(path: Path, missing: str, reason: Reason | None = None) -> Iterator[Iterator[str]]:
    """The lines of a text file, decompressed if its name ends in .gz; every failure is a LabelError.

    missing: the remedy if the file does not exist. reason: of that error.
    """
    try:
        with open_regular(path) as file:
            plain = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as text:
                yield _lines(path, text)
    except FileNotFoundError as error:
        raise LabelError(path, "it does not exist", missing, reason=reason) from error
    except UnicodeDecodeError as error:
        raise LabelError(path, "it is not text in UTF-8", "save it as UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise LabelError(path, f"it is not a complete .gz file: {error}", "copy it again") from error
    except OSError as error:
        raise LabelError(path, f"it cannot be read: {error.strerror or error}", "check the path and its permissions") from error


def _lines(path: Path, text: io.TextIOWrapper) -> Iterator[str]:
    """The lines; raises LabelError for one that is too long, and for too many."""
    left, number = MOST_CHARACTERS, 0
    while line := text.readline(LONGEST_LINE + 1):
        left, number = left - len(line), number + 1
        if len(line) > LONGEST_LINE:
            raise LabelError(path, f"line {number}: it has more than {LONGEST_LINE:,} characters", "correct the table")
        if left < 0 or number > MOST_LINES:
            limit = f"{MOST_LINES:,} lines or {MOST_CHARACTERS >> 20} MiB"
            raise LabelError(path, f"it has more than {limit}, decompressed", "split it into several tables")
        yield line


def escape_formula(text: str) -> str:
    """The text with an apostrophe before it, if a spreadsheet would run it as a formula; `unescape_formula` removes it."""
    if not _FORMULA.match(text):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def unescape_formula(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


class CsvTable:
    """The header and the rows of a CSV, read line by line; made by `open`."""

    def __init__(self, path: Path, remedy: str, header: Sequence[str], rows: _Rows) -> None:
        self.path, self._remedy, self._rows, self._width = path, remedy, rows, len(header)
        self.columns = {name: index for index, name in enumerate(header) if name}
        """Position of each column; columns without a name are left out."""
        self._is_escaped = MARK in self.columns

    @classmethod
    def open(cls, path: Path, lines: Iterator[str], *, known: Collection[str], needed: Sequence[str], remedy: str) -> CsvTable:
        """Reads the header.

        known: names of columns that may be written in another case. needed: columns that must exist.
        Raises LabelError for an empty file, for a missing column, and for two columns of the same name.
        """
        rows = _Rows(path, lines, remedy)
        header = tidy_header(next(rows, []), known)
        header = [unescape_formula(name) for name in header] if MARK in header else header
        table = cls(path, remedy, header, rows)
        if not header:
            table.fail(1, "the file is empty")
        absent = [name for name in needed if name not in header]
        if absent:
            table.fail(
                rows.line, f"it has no column {show_names(absent)}, only {show_names(filter(None, header))}{suggest(absent, header)}"
            )
        if len(table.columns) < sum(map(bool, header)):
            table.fail(rows.line, f"two columns have the same name: {show_names(header)}")
        return table

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and fields of every row that has a value; raises LabelError for a row with more or fewer fields than the header."""
        for row in self._rows:
            if any(field.strip() for field in row[self._width :]) or len(row) < self._width:
                cause = f"is it incomplete, or is a text that contains {self._rows.separator!r} not in quotes?"
                self.fail(self._rows.line, f"it has {len(row)} fields instead of {self._width}; {cause}")
            fields = row[: self._width]
            yield self._rows.line, [unescape_formula(field) for field in fields] if self._is_escaped else fields

    def fail(self, line: int, problem: str) -> NoReturn:
        raise LabelError(self.path, f"line {line}: {problem}", self._remedy)


class _Rows:
    """The rows of a CSV that have a value; the first line shows what separates the fields."""

    def __init__(self, path: Path, lines: Iterator[str], remedy: str) -> None:
        self._path, self._remedy, self._lines = path, remedy, lines
        self.line = 0
        """Number of the last line that was read."""
        first = next(self._checked(), "")
        while first and not first.strip():
            first = next(self._checked(), "")
        named = _EXCEL_SEPARATOR.fullmatch(first.strip("\r\n"))
        self.separator = named[1] if named else find_separator(first)
        header = next(self._checked(), "") if named else first
        self._rows = csv.reader(
            chain([header], self._checked()),
            strict=True,
            delimiter=self.separator,
            skipinitialspace=f"{self.separator} " in header,
        )

    def __iter__(self) -> _Rows:
        return self

    def __next__(self) -> list[str]:
        try:
            return next(row for row in self._rows if any(field.strip() for field in row))
        except csv.Error as error:
            raise LabelError(self._path, f"line {self.line}: it is not CSV: {error}", self._remedy) from error

    def _checked(self) -> Iterator[str]:
        """The lines; raises LabelError for a NUL, as in text in UTF-16."""
        for line in self._lines:
            self.line += 1
            if "\0" in line:
                raise LabelError(self._path, f"line {self.line}: it has a NUL character", "save it as text in UTF-8")
            yield line


def find_separator(header: str) -> str:
    """The character between the names of the first line."""
    return max(_SEPARATORS, key=header.count)


def tidy_header(header: Sequence[str], known: Collection[str]) -> list[str]:
    """Names of columns without blanks around them; one that differs only by case from a known name, which no column has, becomes that."""
    names = [name.strip().strip("\ufeff").strip() for name in header]
    folded = {name.casefold(): name for name in known if name not in names}
    return [folded.get(name.casefold(), name) for name in names]


def show_names(names: Iterable[str]) -> str:
    """The names, separated by commas; names with anything but letters, digits and . _ @ + - are quoted."""
    text = ", ".join(name if _PLAIN_NAME.fullmatch(name) else repr(name) for name in names)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def suggest(wanted: Sequence[str], found: Collection[str]) -> str:
    """` (did you mean 'scores'?)`, the names nearest to the wanted ones; empty if none is near."""
    known = {name.casefold(): name for name in found if name}
    near = [match for name in wanted for match in get_close_matches(name.casefold(), list(known), n=1, cutoff=0.75)]
    return f" (did you mean {', '.join(repr(known[name]) for name in dict.fromkeys(near))}?)" if near else ""


def read_number(text: str, name: str, fail: Callable[[str], NoReturn]) -> float:
    """A number from -LARGEST_NUMBER to LARGEST_NUMBER; for any other text of column `name`, calls `fail` with the problem."""
    try:
        value = float(text)
    except ValueError:
        hint = f"; write {text.strip().replace(',', '.')}" if _DECIMAL_COMMA.fullmatch(text) else ""
        fail(f"{name} is {shorten(text)}, which is not a number{hint}")
    if not math.isfinite(value):
        fail(f"{name} is {shorten(text)[1:-1]}, which is not finite")
    if abs(value) > LARGEST_NUMBER:
        fail(f"{name} is {shorten(text)[1:-1]}, but the largest number a table may hold is {LARGEST_NUMBER:g}: rescale the column")
    return value


def shorten(text: str) -> str:
    """The value in quotes, shortened for a message."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
