"""F18: lines that start with # and a space are comments, which is documented and counted; others that start with # are prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run, invoke
from tests.runtime.fakes import FakeDevice

NOTE = "skipped as comments, because they start with '# '"


@pytest.mark.parametrize("prompt", ["#sunset over a lake", "#1 hit", "##sunset"])
def test_f18_a_prompt_may_start_with_a_hash(prompt: str, gen: Run, fake: FakeDevice) -> None:
    done = gen("--prompts", "-", "-o", "out", stdin=f"{prompt}\n")
    assert (done.exit_code, done.stderr) == (0, "")
    assert len(list(Path("out").iterdir())) == 1


@pytest.mark.parametrize("comment", ["# places", "#", "## places", "  # places", "#\tplaces"])
def test_f18_comments_are_skipped_and_counted_once(comment: str, gen: Run, fake: FakeDevice) -> None:
    done = gen("--prompts", "-", "-o", "out", stdin=f"{comment}\na lake\n{comment}\n\n")
    assert done.exit_code == 0
    assert done.stderr == f"note: 2 lines {NOTE}\n"
    assert [path.name for path in Path("out").iterdir()] == ["0002-a-lake.png"]


def test_f18_a_file_of_comments_is_refused_with_their_number(gen: Run, fake: FakeDevice) -> None:
    done = gen("--prompts", "-", stdin="# a\n# b\n")
    assert done.exit_code == 2
    assert "2 comments" in done.stderr


def test_f18_the_help_says_what_a_comment_is() -> None:
    text = " ".join(invoke("gen", "--help").stdout.split())
    assert 'blank lines and lines that start with "# " are skipped; "#sunset" is a prompt' in text
