"""The start and the end of the command's process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LEAVE = """
import atexit, sys, threading
from costroute_rt.cli.start import leave
atexit.register(lambda: print("last words"))
print("words")
{before}
leave({code})
print("still here")
"""

needs_full_device = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")


def end(code: object, before: str = "") -> subprocess.CompletedProcess[str]:
    script = LEAVE.format(code=code, before=before)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60, env=environment)


def test_a_command_ends_at_once_with_its_code_and_all_that_it_printed() -> None:
    done = end(7)
    assert (done.returncode, done.stdout) == (7, "words\nlast words\n")


@pytest.mark.parametrize(
    ("code", "before"),
    [
        ("None", ""),
        (3, "threading.Thread(target=threading.Event().wait, args=(0.01,)).start()"),
        (3, "sys.stdout.flush(); sys.stdout.close()"),
    ],
    ids=["no number", "a thread", "a closed stream"],
)
def test_python_ends_it_where_something_is_left_to_do(code: object, before: str) -> None:
    done = end(code, before)
    assert "still here" in done.stdout or "closed file" in done.stderr


@needs_full_device
@pytest.mark.parametrize(("stream", "code"), [("stderr", 0), ("stderr", 7), ("stdout", 7)])
def test_a_full_stream_keeps_the_code(stream: str, code: int) -> None:
    assert end(code, f"sys.{stream} = open('/dev/full', 'w'); sys.{stream}.write('note')").returncode == code


@needs_full_device
def test_a_success_whose_output_cannot_be_written_is_an_error() -> None:
    assert end(0, "sys.stdout.flush(); sys.stdout = open('/dev/full', 'w'); print('image')").returncode != 0


def test_short_commands_load_the_matrix_library_with_one_thread() -> None:
    code = "import os, sys; sys.argv = ['costroute-rt', 'gen', '--help']; from costroute_rt.cli.start import main; import atexit;"
    code += " atexit.register(lambda: print(os.environ['OPENBLAS_NUM_THREADS'])); main()"
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment)
    assert done.stdout.splitlines()[-1] == "1"
