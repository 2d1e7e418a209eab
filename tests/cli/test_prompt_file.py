"""How a file of prompts is read: line by line, whatever its lines hold."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from itertools import islice, repeat
from pathlib import Path

import pytest

from costroute_rt.cli.batch import Planner
from costroute_rt.cli.choice import ImageChoice
from costroute_rt.cli.output import Names
from costroute_rt.cli.progress import Status
from costroute_rt.cli.prompt_file import MOST_CHARACTERS, Line, PromptFile, count_lines, open_prompts
from costroute_rt.cli.report import Report
from costroute_rt.error import ConfigError
from tests.runtime.fakes import FakeClock

IMAGE = ImageChoice(
    max_ms=None, or_fastest=False, candidate=None, lam=0.0, tolerance=0.0, count=1, negative_prompt=None, height=None, width=None,
    plain_prompt=False,
)  # fmt: skip


def read(content: bytes) -> list[Line]:
    return list(PromptFile("x", io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", "surrogateescape")))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a\nb\n", [(1, "a"), (2, "b")]),
        (b"a\r\nb\r\n", [(1, "a"), (2, "b")]),
        (b"a\rb", [(1, "a"), (2, "b")]),
        (b"\n\n  a lake \t\n\n", [(3, "a lake")]),
        (b"\xef\xbb\xbfa\n", [(1, "a")]),
        (b"\xef\xbb\xbf# a\n\xef\xbb\xbfb\n", [(2, "b")]),
        (b"a\x0bb\n", [(1, "a\x0bb")]),
        (b"a\x00\n", [(1, "a\x00")]),
        ("夕焼け\u2028x\n".encode(), [(1, "夕焼け\u2028x")]),
        (b"", []),
        (b"\n\r\n \n", []),
        (b"x" * MOST_CHARACTERS + b"\na", [(1, "x" * MOST_CHARACTERS), (2, "a")]),
    ],
)
def test_lines_that_are_read(content: bytes, expected: list[tuple[int, str]]) -> None:
    assert [(line.number, line.prompt) for line in read(content)] == expected
    assert all(line.problem is None for line in read(content))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"caf\xe9\n", "the line is not UTF-8: byte 0xE9 at position 3"),
        (b"\xc3", "the line is not UTF-8: byte 0xC3 at position 0"),
        (b"\xed\xa0\x80 half\n", "the line is not UTF-8: byte 0xED at position 0"),
        (b"x" * (MOST_CHARACTERS + 1), f"the line is longer than {MOST_CHARACTERS} characters"),
        (b"x" * (5 * MOST_CHARACTERS) + b"\n", f"the line is longer than {MOST_CHARACTERS} characters"),
    ],
    ids=["latin-1", "cut", "surrogate", "long", "longer"],
)
def test_a_line_that_is_no_text_has_a_problem_and_the_next_has_none(content: bytes, problem: str) -> None:
    bad, good = read(content.rstrip(b"\n") + b"\na lake\n")
    assert (bad.problem, good) == (problem, Line(2, "a lake"))
    assert len(bad.prompt) <= MOST_CHARACTERS + 1


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_file_in_utf_16_is_refused_as_a_whole(encoding: str) -> None:
    with pytest.raises(ConfigError, match="UTF-8, not in UTF-16"):
        read("\ufeffa lake\n".encode(encoding))


@pytest.mark.parametrize("path", [".", "missing", "\0", "x" * 300])
def test_files_that_cannot_be_opened(path: str) -> None:
    with pytest.raises(ConfigError, match="--prompts"), open_prompts(path):
        pass


def test_lines_are_read_only_when_they_are_needed() -> None:
    def endless() -> Iterator[Line]:
        yield from (Line(number, "a lake") for number, _ in enumerate(repeat(None), 1))

    planner = Planner(IMAGE, Names.of(None, count=1, many=True), None, Report(Status(FakeClock()), as_json=False), seed=None)
    assert [job.line for job in islice(planner.jobs(endless()), 3)] == [1, 2, 3]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_the_first_line_of_a_pipe_is_read_before_the_second_is_written(tmp_path: Path) -> None:
    pipe, is_read = tmp_path / "pipe", threading.Event()
    os.mkfifo(pipe)

    def write() -> None:
        with open(pipe, "w") as file:
            file.write("a lake\n")
            file.flush()
            assert is_read.wait(10)
            file.write("a house\n")

    writer = threading.Thread(target=write)
    writer.start()
    assert count_lines(str(pipe)) is None
    with open_prompts(str(pipe)) as file:
        lines = iter(file)
        assert next(lines) == Line(1, "a lake")
        is_read.set()
        assert list(lines) == [Line(2, "a house")]
    writer.join()


@pytest.mark.parametrize(("content", "lines"), [(b"a\nb\n", 2), (b"a", 1), (b"", 1), (b"a\n\n\n", 3)])
def test_the_lines_of_a_file_are_counted_for_the_progress(content: bytes, lines: int, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(content)
    assert count_lines(str(path)) == lines


@pytest.mark.parametrize("path", ["-", ".", "missing", "/dev/null"])
def test_what_is_no_file_is_not_counted(path: str) -> None:
    assert count_lines(path) is None
