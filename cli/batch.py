"""Many prompts in one run: what goes wrong with one line is reported for that line, and the others go on."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from costroute_rt.cli.failure import say
from costroute_rt.cli.making import Made, make_images
from costroute_rt.cli.output import LAST_SEED, Job, draw_seed
from costroute_rt.cli.progress import Status, is_on_terminal
from costroute_rt.cli.prompt_file import count_lines, open_prompts
from costroute_rt.cli.report import Report
from costroute_rt.cli.resume import find_seed, read_existing
from costroute_rt.error import BudgetError, CostrouteError, EngineError, OutputError, PromptError, Reason

if TYPE_CHECKING:
    from costroute_rt.cli.budget import Budget
    from costroute_rt.cli.choice import ImageChoice
    from costroute_rt.cli.making import Environment
    from costroute_rt.cli.output import Names
    from costroute_rt.cli.prompt_file import Line
    from costroute_rt.cli.resume import Wanted

PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Before each round in which refused lines are tried again; a round that makes an image starts over."""
MOST_WAITING = 1000
"""Lines that wait to be tried again, before this is done without waiting for the end of the file."""
MOST_IN_A_ROW = 5
"""Lines that fail in the same way one after the other, before the run ends: the next ones would fail too."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""A file that cannot be written because of these is not the only one."""

Failure = CostrouteError | OSError


def make_file(
    path: str,
    image: ImageChoice,
    names: Names,
    wanted: Wanted | None,
    environment: Environment,
    *,
    seed: int | None,
    budget: Budget | None,
    as_json: bool,
) -> int:
    """Makes the images of every line of a file; returns the exit code. Raises the errors that would meet every line."""
    report = Report(Status(environment.clock, count_lines(path) if is_on_terminal() else None), as_json=as_json)
    if names.folder is not None:
        names.check_folder(names.folder / "image")
    with open_prompts(path) as file:
        planner = Planner(image, names, wanted, report, seed=seed)
        try:
            Batch(image, names, report, environment).run(planner.jobs(names.check_fields(file, seed)), budget)
        except BrokenPipeError:
            raise
        except BaseException:
            report.summarize(file.comments, ended_early=True)
            raise
        if not report.done:
            raise file.empty_error()
        report.summarize(file.comments)
    if budget is not None and report.images:
        say(budget.describe(report.done - report.kept - report.failed))
    return report.exit_code


class Planner:
    """Decides for each line which images are to be made, with which seed and under which names."""

    def __init__(self, image: ImageChoice, names: Names, wanted: Wanted | None, report: Report, *, seed: int | None) -> None:
        """wanted: what existing images must be to be kept; None makes all of them again (--overwrite)."""
        self._image, self._names, self._wanted, self._report, self._seed = image, names, wanted, report, seed
        self._is_unique, self._has_one_folder = "line" in names.fields, names.folder is not None
        self._seen: set[int] = set()
        """Hashes of the names used so far, if lines can share a name."""

    def jobs(self, lines: Iterable[Line]) -> Iterator[Job]:
        """The work that is to be done, line by line; reports the lines that need none or cannot be used."""
        for line in lines:
            try:
                job = self._plan(line)
            except (PromptError, OutputError) as error:
                self._report.fail(line.number, line.prompt, error)
                continue
            if job.indices:
                yield job
            else:
                self._report.finish_line(line.number, is_kept=True)

    def _plan(self, line: Line) -> Job:
        if line.problem is not None:
            raise PromptError(line.problem)
        count = self._image.count
        seed = draw_seed(count) if self._seed is None else self._seed
        job = Job(prompt=line.prompt, line=line.number, seed=seed, indices=tuple(range(count)))
        self._check_unique(job)
        if not self._has_one_folder:
            self._names.check_folder(self._names.path(job, 0))
        return job if self._wanted is None else self._without_kept(job, self._wanted)

    def _check_unique(self, job: Job) -> None:
        if self._is_unique:
            return
        paths = [self._names.path(job, index) for index in job.indices]
        hashes = set(map(hash, paths))
        if not hashes.isdisjoint(self._seen):
            raise OutputError(paths[0], "an earlier line has the same file name; put {line} into the pattern")
        self._seen |= hashes

    def _without_kept(self, job: Job, wanted: Wanted) -> Job:
        """The job without the images that exist as they are wanted; if the seed is free, the rest goes on with the seed of these."""
        seed, todo, remade = self._seed, [], 0
        for index in job.indices:
            settings = read_existing(self._names.path(job, index))
            if settings is not None and wanted.allows(settings, job.prompt, None if seed is None else seed + index):
                first = find_seed(settings, index, LAST_SEED) if seed is None else seed
                if first is not None:
                    seed = first
                    continue
            todo.append(index)
            remade += settings is not None
        self._report.remade += remade
        return replace(job, seed=job.seed if seed is None else seed, indices=tuple(todo))


class Batch:
    """Makes the images of jobs; those that cannot be made at the moment are tried again at the end."""

    def __init__(self, image: ImageChoice, names: Names, report: Report, environment: Environment) -> None:
        self._image, self._names, self._report, self._environment = image, names, report, environment
        self._waiting: list[tuple[Job, ImageChoice, Failure]] = []
        self._in_a_row, self._last_kind = 0, ""

    def run(self, jobs: Iterable[Job], budget: Budget | None = None) -> None:
        """Makes all images. Raises the errors that would meet every further line as well."""
        open_runtime = self._environment.open_runtime
        work = ((job, self._image) for job in jobs) if budget is None else budget.divide(open_runtime, jobs, self._image, self._report)
        for job, choice in work:
            self._attempt(job, choice)
            if len(self._waiting) >= MOST_WAITING:
                self._try_again()
        self._try_again()

    def _attempt(self, job: Job, choice: ImageChoice, *, is_retry: bool = False) -> None:
        done = 0
        for outcome in self._make(job, choice):
            if isinstance(outcome, Made):
                self._in_a_row, done = 0, outcome.number
                self._report.made(outcome)
            else:
                rest = replace(job, indices=job.indices[done:])
                self._handle(rest, choice, outcome, is_retry=is_retry)
                return
        self._report.finish_line(job.line)

    def _make(self, job: Job, choice: ImageChoice) -> Iterator[Made | Failure]:
        """The images, and at last the error if there is one: errors of whoever prints the images must not be taken for it."""
        runtime = self._environment.open_runtime()
        self._report.start()
        try:
            yield from make_images(runtime, job, choice, self._names, self._environment.clock)
        except (CostrouteError, OSError) as error:
            yield error

    def _handle(self, job: Job, choice: ImageChoice, error: Failure, *, is_retry: bool) -> None:
        """Reports the failure of one line, or lets the line wait; raises the error if it ends the run."""
        self._count_in_a_row(error)
        if self._ends_run(error):
            self._report.end_at(job, error)
            raise error
        is_refused = isinstance(error, BudgetError)
        if is_refused or (isinstance(error, EngineError) and not is_retry):
            self._waiting.append((job, choice, error))
        else:
            self._report.fail(job.line, job.prompt, error)

    def _count_in_a_row(self, error: Failure) -> None:
        """Counts errors that are not about the prompt or one file, as long as they are of one kind."""
        if isinstance(error, (PromptError, BudgetError)):
            return
        kind = f"{type(error).__name__} {getattr(error, 'reason', None)} {_errno(error)}"
        self._in_a_row = self._in_a_row + 1 if kind == self._last_kind else 1
        self._last_kind = kind

    def _ends_run(self, error: Failure) -> bool:
        """Whether every further line would fail in the same way."""
        if self._in_a_row >= MOST_IN_A_ROW or _errno(error) in _FULL:
            return True
        if isinstance(error, BudgetError):
            return not self._report.images and not is_passing(error)
        if isinstance(error, EngineError):
            return error.reason not in (Reason.FAILED, Reason.NO_MEMORY)
        if isinstance(error, OutputError) and self._names.folder is not None and error.path == str(self._names.folder):
            return True
        return not isinstance(error, (PromptError, OutputError, OSError)) or getattr(error, "reason", None) is Reason.FULL

    def _try_again(self) -> None:
        """Tries waiting lines again after ever longer pauses, until all are done or nothing changes; reports those that remain."""
        pauses = iter(PAUSES_S)
        images = self._report.images
        while self._waiting and (pause := next(pauses, None)) is not None:
            self._report.wait(len(self._waiting), pause)
            self._environment.sleep(pause)
            again, self._waiting = self._waiting, []
            made = self._report.images
            for job, choice, _ in again:
                self._attempt(job, choice, is_retry=True)
            if self._report.images > made:
                pauses = iter(PAUSES_S)
        left, self._waiting = self._waiting, []
        if len(left) >= MOST_WAITING and self._report.images == images:
            raise left[0][2]
        for job, _, error in left:
            self._report.fail(job.line, job.prompt, error)


def is_passing(error: BudgetError) -> bool:
    """Whether a refusal is due to what the machine does at the moment."""
    return getattr(error.reason, "value", None) in ("queue", "load")


def _errno(error: Failure) -> int | None:
    """The system's number of the problem behind an error."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return cause.errno if isinstance(cause, OSError) else None
