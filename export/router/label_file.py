"""A label table that grows row by row and survives an interrupted run."""

from __future__ import annotations

import csv
import errno
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, NoReturn

from filelock import FileLock, Timeout

from costroute_rt.error import ConfigError, LabelError, OutputError
from costroute_rt.export.router.csv_file import (
    LONGEST_LINE,
    MARK,
    escape_formula,
    read_number,
    shorten,
    show_names,
    suggest,
    tidy_header,
    unescape_formula,
)
from costroute_rt.export.router.prompts import WRITTEN, PromptRow

Key = tuple[str, str, int]
"""prompt_id, candidate, seed"""
_LONGEST_TAIL_BYTES = 1 << 16
_BEGINNING = b"prompt_id,prompt,"
_SYNC_S = 10.0
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(slots=True)
class Content:
    """Contents of a table before a run."""

    header: tuple[str, ...] = ()
    done: set[Key] = field(default_factory=set)
    prompts: dict[str, PromptRow] = field(default_factory=dict)
    scorers: set[str] = field(default_factory=set)
    fingerprints: dict[str, str] = field(default_factory=dict)
    whole_bytes: int = 0
    """Position of the end of the last complete row."""


class LabelFile:
    """A table open for appending; opened and closed by `open_label_file`. Each row is in the file when `append` returns."""

    def __init__(self, path: Path, file: BinaryIO, content: Content, clock: Callable[[], float]) -> None:
        self.path, self.content = path, content
        self._file, self._clock, self._synced_s = file, clock, clock()

    def start(self, header: Sequence[str]) -> None:
        """Writes the header of a new table; raises OutputError."""
        self.content.header = tuple(header)
        self._write(header)

    def append(self, cells: Mapping[str, str], key: Key) -> None:
        """Adds a row with the columns of `cells` that the table has. Raises OutputError and then leaves the table unchanged."""
        self._write([cells.get(name, "") for name in self.content.header])
        self.content.done.add(key)

    def sync(self) -> None:
        """Makes all rows survive a power cut; raises OutputError."""
        with _output_errors(self.path):
            os.fsync(self._file.fileno())
        self._synced_s = self._clock()

    def _write(self, row: Sequence[str]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(map(escape_formula, row))
        data, before = memoryview(text.getvalue().encode()), self.content.whole_bytes
        try:
            with _output_errors(self.path):
                while data:
                    data = data[self._file.write(data) :]
        except OutputError:
            with suppress(OSError):
                self._file.truncate(before)
            raise
        self.content.whole_bytes = before + len(text.getvalue().encode())
        if self._clock() - self._synced_s > _SYNC_S:
            self.sync()


@contextmanager
def open_label_file(path: Path, clock: Callable[[], float] = time.monotonic) -> Iterator[LabelFile]:
    """The table at `path`, created if it is missing and locked; an incomplete last row of a killed run is removed.

    Raises LabelError for a file that is not a label table, is damaged, or is locked by another run; OutputError if it cannot be written.
    """
    if path.suffix != ".csv":
        raise ConfigError("labels", str(path), "a name that ends in .csv (a finished table may be compressed)")
    if not path.parent.is_dir():  # taking the lock would create it
        raise OutputError(path, "no such folder")
    if os.path.lexists(path) and not path.is_file():
        raise OutputError(path, "it is not a regular file")
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        with _output_errors(path):
            lock.acquire()
    except Timeout as error:
        raise LabelError(path, "another run is adding to it", "wait for it, or label into another table") from error
    try:
        with _output_errors(path):
            file = open(path, "ab", buffering=0)  # noqa: SIM115 closed below
        with file:
            table = LabelFile(path, file, read_content(path), clock)
            with _output_errors(path):
                file.truncate(table.content.whole_bytes)
            try:
                yield table
            finally:
                table.sync()
                if not table.content.whole_bytes:
                    path.unlink()
    finally:
        lock.release()


def read_content(path: Path) -> Content:
    """Contents up to the last complete row; raises LabelError if another row is damaged or the file is not a label table."""
    content, size = Content(), path.stat().st_size
    offset, header = 0, list[str]()

    def lines(file: BinaryIO) -> Iterator[str]:
        nonlocal offset
        while line := file.readline(LONGEST_LINE):
            offset += len(line)
            yield line.decode("utf-8-sig" if offset == len(line) else "utf-8", errors="strict" if line.endswith(b"\n") else "replace")

    with open(path, "rb") as file:
        reader = csv.reader(lines(file), strict=True)
        try:
            for row in reader:
                if offset == size and not _ends_line(path):
                    break  # the last row was not finished
                if not header:
                    header = _check_header(path, row)
                    content.header = tuple(header)
                elif row:
                    _take(path, reader.line_num, header, row, content)
                content.whole_bytes = offset
        except UnicodeDecodeError as error:
            raise LabelError(path, "it is not text in UTF-8", "name another table") from error
        except csv.Error as error:
            if offset < size:
                raise LabelError(path, f"line {reader.line_num}: it is not CSV: {error}", "correct it, or name another table") from error
    _check_tail(path, content, size)
    return content


def _ends_line(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _check_header(path: Path, names: list[str]) -> list[str]:
    header = tidy_header(names, ("prompt_id", "prompt", *WRITTEN))
    header = [unescape_formula(name) for name in header] if MARK in header else header
    missing = [name for name in ("prompt", "candidate", "score") if name not in header]
    if missing or len(set(header)) < len(header):
        problem = f"it is not a label table: its columns are {show_names(header)}{suggest(missing, header)}"
        raise LabelError(path, problem, "name another table, or one with the columns prompt, candidate and score, separated by commas")
    return header


def _take(path: Path, line: int, header: list[str], row: list[str], content: Content) -> None:
    """Adds one row of the table to `content`."""
    if len(row) != len(header):
        raise LabelError(path, f"line {line}: it has {len(row)} fields instead of {len(header)}", "correct or remove it")
    cells = dict(zip(header, map(unescape_formula, row) if MARK in header else row, strict=True))
    prompt_id = cells.get("prompt_id") or cells["prompt"]
    own = {name: text for name, text in cells.items() if name not in ("prompt_id", "prompt", *WRITTEN) and not name.startswith("score_")}
    before = content.prompts.get(prompt_id)
    if before is None:
        content.prompts[prompt_id] = PromptRow(prompt_id=prompt_id, prompt=cells["prompt"], extra=own)
    elif before.extra.items() - own.items():  # columns that differ from row to row are not about the prompt
        same = {name: text for name, text in before.extra.items() if own[name] == text}
        content.prompts[prompt_id] = replace(before, extra=same)
    if not cells["score"].strip():
        return

    def fail(problem: str) -> NoReturn:
        raise LabelError(path, f"line {line}: {problem}", "correct it")

    for name in ("score", "cost_ms"):
        if cells.get(name, "").strip():
            read_number(cells[name], name, fail)
    candidate = cells["candidate"].strip()
    try:
        content.done.add((prompt_id, candidate, int(cells.get("seed") or 0)))
    except ValueError:
        fail(f"seed is {shorten(cells['seed'])}, which is not a whole number")
    if cells.get("scorer"):
        content.scorers.add(cells["scorer"])
    if cells.get(MARK) and content.fingerprints.setdefault(candidate, cells[MARK]) != cells[MARK]:
        raise LabelError(path, f"line {line}: candidate {candidate} has two fingerprints", "label each into its own table")


def _check_tail(path: Path, content: Content, size: int) -> None:
    """Raises LabelError unless bytes after the last complete row are an incomplete row that labelling wrote."""
    tail = size - content.whole_bytes
    if not tail:
        return
    if not content.header:
        if not _BEGINNING.startswith(path.read_bytes()[: len(_BEGINNING)]):
            raise LabelError(path, "it is not a label table", "name another table")
    elif MARK not in content.header:
        raise LabelError(path, "its last line has no line break, so it may be half a row", "complete or remove that line")
    if tail > _LONGEST_TAIL_BYTES:
        problem = f"it is damaged: its last {tail:,} bytes hold no complete row"
        raise LabelError(path, problem, "correct it, or name another table")


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    """Turns errors of the file system into OutputError; a lock's timeout passes."""
    try:
        yield
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if isinstance(error, OSError) and error.errno in _FULL:
            reason = f"{reason} (free some space and run the command again; the rows so far are kept)"
        raise OutputError(path, reason) from error
