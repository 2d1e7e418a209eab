"""F19: text that is not in the encoding of the command line is refused with that encoding; no text at all breaks the output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from costroute_rt import EngineError, Runtime
from costroute_rt.cli.text import undecoded_problem
from tests.cli.conftest import Run, invoke
from tests.runtime.fakes import FakeDevice

LATIN = "caf\udce9"
"""What Python makes of café in Latin-1 where UTF-8 is expected."""
ENCODING = sys.getfilesystemencoding().upper()


@pytest.mark.parametrize(
    "arguments",
    [
        ["route", LATIN],
        ["gen", LATIN],
        ["gen", "a lake", "--negative-prompt", LATIN],
        ["gen", "a lake", "--candidate", LATIN],
        ["gen", "a lake", "--backend", LATIN],
        ["gen", "a lake", "--provider", LATIN],
        ["gen", "a lake", "--precision", LATIN],
        ["build-engines", "--graph", LATIN],
        ["build-engines", "--target", LATIN],
        ["engines", "rm", LATIN],
        ["label", "--labels", "x.csv", "--candidate", LATIN],
        ["fit-router", "--labels", "x.csv", "-o", "x", "--score", LATIN],
    ],
    ids=" ".join,
)
def test_f19_the_encoding_and_the_remedy_are_named(arguments: list[str], run: Run, home: Path) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert f"byte 0xE9 after 'caf' is not {ENCODING}, the encoding of the command line" in done.stderr
    assert "LC_ALL=C.UTF-8" in done.stderr
    assert "gen --prompts FILE" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [LATIN],
        ["gen", f"--{LATIN}"],
        ["gen", "a lake", "--max-ms", LATIN],
        ["gen", "a lake", "--count", LATIN],
        ["gen", "--prompts", LATIN],
        ["gen", "a lake", "--bundle", LATIN],
        ["gen", "a lake", "-o", LATIN],
        ["gen", "a lake", "-o", f"{LATIN}/x.png"],
        ["label", "--labels", LATIN, "--prompts", LATIN],
        ["fit-router", "--labels", LATIN, "-o", LATIN],
        ["eval-router", "--labels", LATIN],
    ],
    ids=" ".join,
)
def test_f19_names_in_another_encoding_are_shown_escaped_with_the_encoding(arguments: list[str], run: Run, home: Path) -> None:
    done = run(*arguments)
    assert done.exit_code != 0
    assert r"caf\udce9" in done.stderr
    assert f"stands for a byte of a name that is not {ENCODING}" in done.stderr
    assert "a bug" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0xDCC3, "byte 0xC3 at its start is not ASCII, the encoding of the command line"),
        (0xD83D, "it has half of a character, U+D83D, at its start"),
    ],
)
def test_f19_other_surrogates_and_encodings(code: int, text: str) -> None:
    assert undecoded_problem(code, "", "ascii").startswith(text)


def test_f19_files_may_have_such_names(gen: Run, fake: FakeDevice) -> None:
    done = gen("a lake", "-o", f"{LATIN}.png", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["outputs"] == [f"{LATIN}.png"]
    assert len(os.listdir(".")) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows gives programs text, not bytes")
def test_f19_a_bundle_in_such_a_folder_is_refused_before_libraries_fail_on_it(run: Run, home: Path, tiny_bundle: Path) -> None:
    os.symlink(tiny_bundle, LATIN)
    done = run("gen", "a lake", "--bundle", LATIN)
    assert done.exit_code == 4
    assert "its path holds bytes that are not UTF-8" in done.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_f19_a_line_in_another_encoding_is_that_lines_trouble(as_json: bool, gen: Run, fake: FakeDevice) -> None:
    Path("lines.txt").write_bytes(b"a lake\ncaf\xe9 au lait\ncaf\xc3\xa9\n")
    done = gen("--prompts", "lines.txt", "-o", "out", *(["--json"] if as_json else []))
    assert done.exit_code == 2
    assert "error: line 2: the line is not UTF-8: byte 0xE9 at position 3\n" in done.stderr
    assert len(list(Path("out").iterdir())) == 2
    if as_json:
        failed = [json.loads(line) for line in done.stdout.splitlines()][1]
        assert failed["prompt"] == r"caf\udce9 au lait"


def start(arguments: list[str | bytes], **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "costroute_rt.cli", *arguments]
    return subprocess.run(command, check=False, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["gen", "--help"]], ids=" ".join)
def test_f19_output_that_cannot_be_written_is_an_output_error(arguments: list[str | bytes]) -> None:
    with open("/dev/full", "wb") as full:
        done = start(arguments, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 7
    assert done.stderr == b"error: cannot write standard output: No space left on device\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_f19_errors_that_cannot_be_written_keep_their_exit_code() -> None:
    with open("/dev/full", "wb") as full:
        assert start(["gen"], stdout=full, stderr=full).returncode == 2


@pytest.mark.skipif(os.name == "nt", reason="closes streams by number")
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_f19_closed_streams_change_nothing(closed: tuple[int, ...]) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    assert start(["--version"], preexec_fn=close).returncode == 0
    assert start(["gen"], preexec_fn=close).returncode == 2
    assert start(["gen", "--prompts", "-", "--bundle", "missing"], preexec_fn=close).returncode == 4


@pytest.mark.skipif(os.name == "nt", reason="Windows gives programs text, not bytes")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "ascii:surrogateescape", "utf-8:strict"])
def test_f19_any_encoding_of_the_output_shows_any_error(encoding: str) -> None:
    done = start([b"gen", b"--prompts", b"\xe9\xe5\xa4\x95"], env={**os.environ, "PYTHONIOENCODING": encoding}, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: --prompts is ")
    assert done.stderr.count(b"\n") == 1


def test_f19_help_is_the_same(run: Run) -> None:
    assert "--negative-prompt TEXT" in invoke("gen", "--help").stdout


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are any bytes")
def test_f19_a_store_may_have_such_a_name_if_it_is_utf_8(tiny_bundle: Path, tmp_path: Path) -> None:
    home = tmp_path / "café"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COSTROUTE_HOME": str(home)}
    command = [sys.executable, "-m", "costroute_rt.cli", "build-engines", "--bundle", str(tiny_bundle)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, errors="backslashreplace", check=False)
    assert done.returncode == 0, done.stderr
    assert list(home.glob("engines/*/model.onnx"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are any bytes")
def test_f19_a_store_whose_name_is_not_utf_8_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="names in UTF-8 alone"):
        Runtime.open(tiny_bundle, home=tmp_path / LATIN, build=True)
