"""Searches readers of files for inputs that end badly, guided by the code that each input reaches (Atheris, libFuzzer).

    python -m tests.fuzz.coverage                          every reader, ten minutes each
    python -m tests.fuzz.coverage manifest --seconds 60    one of them

An input fails if it raises another error than those of this package, takes more than 10 s, or lets the process hold more than 500 MB.
Inputs that reach new code are kept in --corpus, so that a later run goes on from there.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

SECONDS, LONGEST_S, MOST_MB = 600, 10, 500
OWN_CHANGES = 0.8
"""Share of inputs that the reader's own changes make; the others are libFuzzer's, which know nothing of the format."""
COMPARE_ARRAYS = ["costroute_rt.engines.bundle.finite"]
"""Modules that are left uninstrumented: Atheris never frees the array that a comparison of arrays returns."""
LAUNCH = ("/bin/sh", "-c", '"$@" & wait $!', "sh")
"""Starts a command from a small process: the highest memory of a process, which libFuzzer reads, begins at that of its parent."""
_DONE = re.compile(r"Done (\d+) runs in (\d+) second")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs each reader in a process of its own, and prints what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.coverage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="readers; default: all")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each reader")
    parser.add_argument("--corpus", type=Path, default=None, help="folder of inputs to begin with and to add to")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="folder for inputs that fail")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.run:
        run(given.names[0], given)
        return 0
    from tests.fuzz.reader import READERS

    unknown = [name for name in given.names if name not in READERS]
    if unknown:
        parser.error(f"unknown reader {unknown[0]!r}: {', '.join(READERS)}")
    failed = [name for name in given.names or READERS if not search(name, given)]
    return bool(failed)


def search(name: str, given: argparse.Namespace) -> bool:
    """Runs one reader and prints a line; returns whether no input failed."""
    command = [
        *LAUNCH,
        sys.executable,
        "-m",
        "tests.fuzz.coverage",
        name,
        "--run",
        "--seconds",
        str(given.seconds),
        "--seed",
        str(given.seed),
    ]
    command += ["--failures", str(given.failures), *(["--corpus", str(given.corpus)] if given.corpus else [])]
    done = subprocess.run(command, capture_output=True, text=True, errors="backslashreplace")
    output = done.stdout + done.stderr
    match = _DONE.search(output)
    if done.returncode == 0 and match:
        sys.stdout.write(f"{name}: {match[1]} inputs in {match[2]} s, {describe(output)}\n")
    else:
        sys.stdout.write(f"{name}: failed, exit code {done.returncode}\n{output[-6000:]}\n")
    sys.stdout.flush()
    return done.returncode == 0 and match is not None


def describe(output: str) -> str:
    """Places of code reached, and memory, as libFuzzer's last line shows them."""
    found = re.findall(r"cov: (\d+) ft: \d+ corp: (\d+)\S* .*?rss: (\d+)Mb", output)
    return "{} places reached, {} inputs kept, {} MB".format(*found[-1]) if found else "no progress shown"


def run(name: str, given: argparse.Namespace) -> None:
    """Searches one reader until the time is over; does not return."""
    import atheris

    with atheris.instrument_imports(include=["costroute_rt"], exclude=COMPARE_ARRAYS, enable_loader_override=False):
        from tests.fuzz.place import Place, make_template
        from tests.fuzz.reader import READERS

    reader, folder = READERS[name], Path(tempfile.mkdtemp(prefix="costroute-fuzz-"))
    path = reader.make(Place.make(make_template(folder / "template"), folder / "place").root)
    original = path.read_bytes()
    corpus = (given.corpus or folder / "corpus") / name.replace("/", "_")
    for each in (corpus, given.failures):
        each.mkdir(parents=True, exist_ok=True)
    (corpus / "original").write_bytes(original)

    def test_one_input(data: bytes) -> None:
        problem = reader.try_content(path, data)
        if problem is not None:
            raise AssertionError(problem)

    def change(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        return reader.change(random, data)[:most] if random.random() < OWN_CHANGES else bytes(atheris.Mutate(data, most))

    artifacts = f"{given.failures}/{name.replace('/', '_')}-"
    options = {
        "max_total_time": given.seconds, "rss_limit_mb": MOST_MB, "timeout": LONGEST_S, "seed": given.seed,
        "max_len": max(4 * len(original), 1 << 16), "print_final_stats": 1, "artifact_prefix": artifacts,
    }  # fmt: skip
    arguments = [sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus)]
    atheris.Setup(arguments, test_one_input, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
