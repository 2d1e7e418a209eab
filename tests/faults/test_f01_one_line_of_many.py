"""F1: what goes wrong with one line of a file of prompts is reported for that line, and the others go on."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from costroute_rt import Runtime
from costroute_rt.cli.batch import MOST_IN_A_ROW, PAUSES_S
from costroute_rt.error import BackendError, BudgetError, BundleError, CancelledError, ConfigError, EngineError, OutputError, Reason
from tests.cli.conftest import Run
from tests.runtime.fakes import FakeDevice

LINES = "a lake\na house\na tree\na road\na boat\na hill\n"
PROMPTS = LINES.splitlines()

Fail = Callable[[str, int], BaseException | None]
"""The error of a prompt at its n-th attempt, from 1."""


@pytest.fixture
def failing(fake: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> Callable[[Fail], None]:
    """Makes `Runtime.generate` raise what a function says."""

    def fail_as(error_of: Fail) -> None:
        generate, attempts = Runtime.generate, dict[str, int]()

        def failing_generate(self: Runtime, prompt: str, **options: Any) -> Any:
            attempts[prompt] = attempts.get(prompt, 0) + 1
            error = error_of(prompt, attempts[prompt])
            if error is not None:
                raise error
            return generate(self, prompt, **options)

        monkeypatch.setattr(Runtime, "generate", failing_generate)

    return fail_as


def images() -> list[str]:
    return sorted(path.name for path in Path("out").glob("*.png"))


def refused() -> BudgetError:
    return BudgetError(60, "turbo@1", 70)


def engine_error(reason: Reason) -> EngineError:
    return EngineError("it failed", reason=reason, engine="tiny/base/step")


def disk_full() -> OutputError:
    error = OutputError("out/x.png", "No space left on device")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_f1_lines_refused_while_the_machine_is_busy_are_made_at_the_end(attempts: int, gen: Run, failing: Callable[[Fail], None]) -> None:
    failing(lambda prompt, attempt: refused() if prompt != PROMPTS[0] and attempt <= attempts else None)
    done = gen("--prompts", "-", "-o", "out", "--max-ms", 60, stdin=LINES)
    assert done.exit_code == 0, done.stderr
    assert len(images()) == 6
    assert done.stdout.count("\n") == 6
    assert "5 lines could not be made at the moment and will be tried again" in done.stderr


def test_f1_lines_that_stay_refused_are_reported(gen: Run, fake: FakeDevice, failing: Callable[[Fail], None]) -> None:
    failing(lambda prompt, _: refused() if prompt in ("a tree", "a boat") else None)
    started = fake.clock()
    done = gen("--prompts", "-", "-o", "out", "--max-ms", 60, stdin=LINES)
    assert done.exit_code == 3
    assert [name[:4] for name in images()] == ["0001", "0002", "0004", "0006"]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [error.split(":")[1].strip() for error in errors] == ["line 3", "line 5"]
    assert fake.clock() - started < sum(PAUSES_S) + 1


def test_f1_a_budget_that_was_never_enough_ends_the_run_at_once(gen: Run, fake: FakeDevice) -> None:
    started = fake.clock()
    done = gen("--prompts", "-", "-o", "out", "--max-ms", 30, stdin=LINES)
    assert done.exit_code == 3
    assert done.stderr.startswith("error: nothing fits in 30 ms")
    assert done.stderr.count("\n") == 1
    assert fake.clock() - started < 1


def test_f1_a_long_busy_moment_does_not_keep_every_line_in_memory(
    gen: Run, failing: Callable[[Fail], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("costroute_rt.cli.batch.MOST_WAITING", 3)
    failing(lambda prompt, _: refused() if prompt != PROMPTS[0] else None)
    done = gen("--prompts", "-", "-o", "out", "--max-ms", 60, stdin=LINES)
    assert done.exit_code == 3
    assert done.stderr.splitlines()[-2].startswith("1 image made; ended early")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (engine_error(Reason.FAILED), 5),
        (engine_error(Reason.NO_MEMORY), 5),
        (OutputError("out/x.png", "File name too long"), 7),
        (OSError(errno.EIO, "Input/output error", "x"), 1),
    ],
    ids=lambda value: str(value)[:20],
)
def test_f1_an_error_of_one_line_is_that_lines(error: Exception, code: int, gen: Run, failing: Callable[[Fail], None]) -> None:
    failing(lambda prompt, _: error if prompt == "a tree" else None)
    done = gen("--prompts", "-", "-o", "out", stdin=LINES)
    assert done.exit_code == code
    assert len(images()) == 5
    assert "error: line 3: " in done.stderr
    assert done.stderr.endswith("5 images made; 1 line failed\n")


def test_f1_an_engine_that_fails_once_costs_no_image(gen: Run, failing: Callable[[Fail], None]) -> None:
    failing(lambda prompt, attempt: engine_error(Reason.FAILED) if prompt == "a tree" and attempt == 1 else None)
    done = gen("--prompts", "-", "-o", "out", stdin=LINES)
    assert (done.exit_code, len(images())) == (0, 6)


ENDING = [
    engine_error(Reason.MISSING), engine_error(Reason.CANNOT_OPEN), engine_error(Reason.STORE), disk_full(),
    OSError(errno.ENOSPC, "No space left on device", "x"), OSError(errno.EROFS, "Read-only file system", "x"),
    BackendError("cuda", "cpu", "install it"), BundleError("b", "damaged", "copy it"), ConfigError("candidate", "x", "another"),
    CancelledError(), KeyboardInterrupt(),
]  # fmt: skip


@pytest.mark.parametrize("error", ENDING, ids=lambda error: f"{type(error).__name__} {getattr(error, 'reason', '')}")
def test_f1_errors_that_meet_every_line_end_the_run(error: BaseException, gen: Run, failing: Callable[[Fail], None]) -> None:
    tried: list[str] = []

    def fail(prompt: str, _: int) -> BaseException | None:
        tried.append(prompt)
        return error if prompt == "a tree" else None

    failing(fail)
    done = gen("--prompts", "-", "-o", "out", stdin=LINES)
    assert done.exit_code == (130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1))
    assert tried == PROMPTS[:3]
    assert len(images()) == 2
    assert "2 images made; ended early: the same command continues" in done.stderr


def test_f1_the_same_error_many_times_in_a_row_ends_the_run(gen: Run, failing: Callable[[Fail], None]) -> None:
    def names() -> Iterator[str]:
        yield from (f"tree {number}" for number in range(50))

    failing(lambda *_: OutputError("out/x.png", "Stale file handle"))
    done = gen("--prompts", "-", "-o", "out", stdin="\n".join(names()))
    assert done.exit_code == 7
    assert done.stderr.count("error: ") == MOST_IN_A_ROW


def test_f1_bad_prompts_never_end_the_run(gen: Run, fake: FakeDevice) -> None:
    done = gen("--prompts", "-", "-o", "out", stdin="\x01\n" * 50 + "a lake\n")
    assert done.exit_code == 2
    assert len(images()) == 1


@pytest.mark.parametrize(("lines", "exit_code"), [(LINES + "\x00\n", 7), ("\x00\n" + LINES, 2)])
def test_f1_the_exit_code_is_that_of_the_first_line_that_failed(
    gen: Run, failing: Callable[[Fail], None], lines: str, exit_code: int
) -> None:
    failing(lambda prompt, _: OutputError("x.png", "odd") if prompt == "a house" else None)
    assert gen("--prompts", "-", "-o", "out", stdin=lines).exit_code == exit_code


def test_f1_files_in_the_way_are_the_trouble_of_their_lines(gen: Run, fake: FakeDevice) -> None:
    Path("out/0002-a-house.png").mkdir(parents=True)
    Path("out/0004-a-road.png").write_text("my notes")
    done = gen("--prompts", "-", "-o", "out", stdin=LINES)
    assert done.exit_code == 7
    assert "line 2: cannot write out/0002-a-house.png: it is a directory" in done.stderr
    assert "line 4: cannot write out/0004-a-road.png: it exists and was not made by costroute-rt (--overwrite replaces it)" in done.stderr
    assert done.stdout.count("\n") == 4
    assert Path("out/0004-a-road.png").read_text() == "my notes"


def test_f1_each_failed_line_is_one_json_object(gen: Run, failing: Callable[[Fail], None]) -> None:
    failing(lambda prompt, _: refused() if prompt == "a tree" else None)
    done = gen("--prompts", "-", "-o", "out", "--json", "--max-ms", 60, stdin=LINES + "a\x01b\n")
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    failures = {report["line"]: report for report in reports if "error" in report}
    assert sorted(report["line"] for report in reports) == [1, 2, 3, 4, 5, 6, 7]
    assert failures.keys() == {3, 7}
    assert (failures[3]["prompt"], failures[3]["error"]["type"], failures[3]["error"]["exit_code"]) == ("a tree", "BudgetError", 3)
    assert failures[7]["error"]["message"].startswith("the prompt has a control character")
