"""What a run over many prompts prints: a line for each image on stdout, the rest on stderr, and the exit code at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costroute_rt.cli.failure import describe, error_json, exit_code, say, say_error
from costroute_rt.cli.table import show, show_json
from costroute_rt.plain_text import one_line

if TYPE_CHECKING:
    from costroute_rt.cli.making import Made
    from costroute_rt.cli.output import Job
    from costroute_rt.cli.progress import Status
    from costroute_rt.error import CostrouteError

LONGEST_PROMPT = 1000
"""Characters of a failed line's prompt in JSON."""


class Report:
    """Counts what becomes of each line of a file, and prints it."""

    def __init__(self, status: Status, *, as_json: bool, has_lines: bool = True) -> None:
        """has_lines: whether images belong to lines of a file, whose numbers are printed."""
        self._status, self._as_json, self._has_lines = status, as_json, has_lines
        self.images = self.done = self.kept = self.remade = self.failed = 0
        """Images made; lines finished in any way, lines kept, existing images made again, lines failed."""
        self.exit_code = 0
        """That of the first line that failed."""
        self._notes: dict[str, int] = {}
        self._has_waited, self._line = False, 0

    def made(self, made: Made) -> None:
        """Reports one image."""
        self.images += 1
        self._status.clear()
        for text in notes_of(made):
            self._note(text, made.job.line)
        if self._as_json:
            show_json({**({"line": made.job.line} if self._has_lines else {}), **made.to_json()}, indent=None)
        else:
            show(one_line(made.describe()))
        self._show(made.number if not self._has_lines else self._line)

    def start(self) -> None:
        """Starts the clock of the time to go, once the runtime is open."""
        self._status.start()

    def finish_line(self, line: int, *, is_kept: bool = False) -> None:
        """Counts a line whose images all exist now."""
        self.done, self.kept = self.done + 1, self.kept + is_kept
        self._show(line)

    def fail(self, line: int, prompt: str, error: CostrouteError | OSError) -> None:
        """Reports a line whose images cannot be made."""
        self.done, self.failed = self.done + 1, self.failed + 1
        self.exit_code = self.exit_code or exit_code(error)
        self._status.clear()
        if self._as_json:
            self._show_error(line, prompt, error)
        say_error(f"line {line}: {describe(error)}")
        self._show(line)

    def end_at(self, job: Job, error: CostrouteError | OSError) -> None:
        """Reports the line at which the run ends; the error itself is printed by whoever catches it."""
        self._status.clear()
        if self._as_json:
            self._show_error(job.line, job.prompt, error)

    def _show_error(self, line: int, prompt: str, error: CostrouteError | OSError) -> None:
        """Prints a failed line as one JSON object."""
        text = prompt.encode("utf-8", "backslashreplace").decode()  # bytes that are not UTF-8 are not JSON either
        shown = text if len(text) <= LONGEST_PROMPT else f"{text[:LONGEST_PROMPT]}..."
        show_json({"line": line, "prompt": shown, "error": error_json(error)}, indent=None)

    def wait(self, lines: int, pause_s: float) -> None:
        """Reports that lines are tried again after a pause."""
        if not self._has_waited:
            self._status.clear()
            say(f"note: {_count(lines, 'line')} could not be made at the moment and will be tried again")
        self._has_waited = True
        self._status.wait(f"trying {_count(lines, 'line')} again in {pause_s:.0f} s")

    def judging(self, done: int, total: int) -> None:
        """Shows that prompts are judged before images are made."""
        self._status.wait(f"judging prompts: {done}/{total}")

    def summarize(self, comments: int, *, ended_early: bool = False) -> None:
        """Prints what the lines on stdout do not say; nothing if every line was made and none was skipped."""
        self._status.clear()
        for text, times in self._notes.items():
            if times > 1:
                say(f"note: {_count(times - 1, 'more line')}: {text}")
        if comments:
            say(f"note: {_count(comments, 'line')} skipped as comments, because they start with '# '")
        if not (self.kept or self.remade or self.failed or (ended_early and self.images)):
            return
        parts = [f"{_count(self.images, 'image')} made"]
        if self.remade:
            parts[0] += f" ({self.remade} again, because existing files had other settings)"
        if self.kept:
            parts.append(f"{_count(self.kept, 'line')} kept: the images exist with the same settings (--overwrite makes them again)")
        if self.failed:
            parts.append(f"{_count(self.failed, 'line')} failed")
        if ended_early:
            parts.append("ended early: the same command continues")
        say("; ".join(parts))

    def end(self) -> None:
        """Removes the progress from the terminal."""
        self._status.clear()

    def say_partly(self, count: int) -> None:
        """Reports how many of a prompt's images exist when the run ends early; nothing if there are none."""
        self._status.clear()
        if self.images:
            say(f"{self.images} of {_count(count, 'image')} made")

    def _note(self, text: str, line: int) -> None:
        """Prints a note the first time, and counts it after that."""
        self._notes[text] = self._notes.get(text, 0) + 1
        if self._notes[text] == 1:
            self._status.clear()
            say(f"note: line {line}: {text}" if self._has_lines else f"note: {text}")

    def _show(self, line: int) -> None:
        """Shows that everything up to this line is done; without lines, the number of images."""
        self._line = max(self._line, line)
        worked = self.done - self.kept if self._has_lines else line
        self._status.show(self._line, worked=worked, extra=f"{self.failed} failed" if self.failed else "")


def notes_of(made: Made) -> list[str]:
    """Warnings about one image, and about the decision that was made for all images of its prompt."""
    judgement = made.route.judgement
    shared = judgement.note if judgement is not None and len(made.route.options) > 1 else None
    return list(dict.fromkeys([*made.result.notes, *([shared] if shared else [])]))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
