"""The kinds of cases: odd command lines, damaged files, calls from Python, and processes in odd circumstances."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.api import try_calls
from tests.fuzz.case import Case, draw_environment, fifos, invoke
from tests.fuzz.command_line import draw_command
from tests.fuzz.mutation import damage_image, damage_text, mutate_file, mutate_graph, mutate_safetensors, seal
from tests.fuzz.odd import show
from tests.fuzz.reading import try_readers

ROOT = Path(__file__).parents[2]
PROCESS_LIMIT_S = 60.0


def try_command(case: Case) -> None:
    """One or two command lines on intact files, in this process."""
    odd_paths = case.place.make_odd_paths()
    digests = [each.name for each in (case.place.root / "home/engines").iterdir()]
    for _ in range(case.random.choice((1, 1, 2))):
        arguments = draw_command(case.random, odd_paths, digests)
        interrupt_s = case.random.uniform(0.001, 0.5) if case.random.random() < 0.05 else None
        invoke(case, arguments, draw_environment(case.random, case.place), interrupt_s=interrupt_s)
    case.problems += case.place.problems(case.template, may_change=changed_by(arguments))


def changed_by(arguments: list[str]) -> set[str]:
    """Folders that this command may write into."""
    writes = {"gen", "fit-router", "eval-router", "label"}
    return {"user", *({"bundle", "routed"} if arguments and arguments[0] in writes else ())}


STORE_READERS = (
    ["engines", "list"], ["engines", "list", "--json"], ["engines", "verify"], ["engines", "verify", "--json"], ["engines", "gc",
    "--max-gb", "0"],
    ["engines", "gc", "--max-gb", "0.0003", "--dry-run"], ["engines", "explain"], ["engines", "rm", "--all"], ["gen", "a lake",
    "--no-build"], ["gen", "a lake"],
    ["gen", "a lake", "--max-ms", "100", "-o", "out.png"], ["route", "a lake"], ["route", "a lake", "--max-ms", "30"], ["build-engines"],
    ["build-engines", "--dry-run"], ["build-engines", "--force"], ["profile"], ["doctor"], ["gen", "--prompts", "lines.txt", "--mean-ms",
    "50", "-o", "out"],
)  # fmt: skip
BUNDLE_READERS = (
    *STORE_READERS, ["fit-router", "--labels", "labels.csv", "--encoder", "hashed", "-o", "made"], ["fit-router", "--labels",
    "labels.csv", "-o", "made"],
    ["eval-router", "--labels", "heldout.csv"], ["label", "--prompts", "prompts.csv", "--labels", "new.csv", "--scorer",
    "fuzz_scorer:brightness", "--seeds", "1"],
    ["label", "--prompts", "prompts.csv", "--labels", "new.csv", "--seeds", "1"], ["build-engines", "--height", "64", "--width", "96"],
)  # fmt: skip
GRAPH_READERS = (
    ["build-engines"], ["gen", "a lake"], ["gen", "a lake", "--candidate", "tiny-turbo@1", "-o", "out.png"],
    ["gen", "a lake", "--candidate", "tiny-base@4", "-o", "out.png"], ["route", "a lake"], ["build-engines", "--backend", "openvino"],
    ["label", "--prompts", "prompts.csv", "--labels", "new.csv", "--scorer", "fuzz_scorer:brightness", "--seeds", "1"],
)  # fmt: skip
FILE_READERS = {
    "image.png": (["info", "image.png"], ["info", "image.png", "--json"], ["gen", "--prompts", "lines.txt", "-o", "image.png"], ["gen",
    "--prompts", "one.txt", "-o", "image.png"]),
    "image.jpg": (["info", "image.jpg"], ["info", "image.jpg", "--json"], ["gen", "--prompts", "one.txt", "-o", "image.jpg"]),
    "image.webp": (["info", "image.webp"], ["info", "image.webp", "--json"], ["gen", "--prompts", "one.txt", "-o", "image.webp"]),
    "lines.txt": (["gen", "--prompts", "lines.txt", "-o", "out"], ["gen", "--prompts", "lines.txt", "--total-s", "5", "-o", "out",
    "--json"]),
    "prompts.csv": (["label", "--prompts", "prompts.csv", "--labels", "new.csv", "--scorer", "fuzz_scorer:brightness", "--seeds", "1"],),
    "labels.csv.gz": (
        ["fit-router", "--labels", "labels.csv.gz", "--encoder", "hashed", "-o", "made"],
        ["eval-router", "--labels", "labels.csv.gz"],
    ),
    "labels.csv": (
        ["fit-router", "--labels", "labels.csv", "--encoder", "hashed", "-o", "made"], ["fit-router", "--labels", "labels.csv", "-o",
        "made", "--category", "category"],
        ["label", "--prompts", "prompts.csv", "--labels", "labels.csv", "--scorer", "fuzz_scorer:brightness", "--seeds", "1"],
        ["eval-router", "--labels", "labels.csv"], ["eval-router", "--labels", "labels.csv", "--category", "category", "--json"],
    ),
}  # fmt: skip
NO_BUNDLE = {("info",), ("doctor",), ("engines", "verify"), ("engines", "rm")}


def with_bundle(arguments: list[str], name: str) -> list[str]:
    is_without = any(tuple(arguments[: len(words)]) == words for words in NO_BUNDLE)
    return list(arguments) if is_without else [*arguments, "--bundle", name]


def try_bundle(case: Case) -> None:
    """Commands on a bundle with damaged files, whose hashes most often agree with the damage."""
    folder = case.place.root / case.random.choice(("bundle", "routed"))
    _damage(case, folder)
    if case.random.random() < 0.75:
        seal(folder)
        case.note("hashes corrected")
    _read(case, BUNDLE_READERS, f"../{folder.name}")


def try_graphs(case: Case) -> None:
    """Building and running the graphs of a bundle whose graphs or weights are damaged, and whose hashes agree with the damage."""
    folder = case.place.root / "bundle"
    files = [each for each in sorted(folder.rglob("*")) if each.suffix in (".onnx", ".safetensors")]
    path = case.random.choice([each for each in files if each.suffix == ".onnx"] * 4 + files)
    data = path.read_bytes()
    path.write_bytes((mutate_graph if path.suffix == ".onnx" else mutate_safetensors)(case.random, data))
    case.note(f"damaged {path.relative_to(folder)}: {len(data)} to {path.stat().st_size} bytes")
    seal(folder)
    _read(case, GRAPH_READERS, "../bundle")


def try_store(case: Case) -> None:
    """Commands on a store with damaged files."""
    home = case.place.root / "home"
    _damage(case, home)
    environment: dict[str, str | None] = {}
    if case.random.random() < 0.2:  # as an extra store, beside an empty one
        environment = {"COSTROUTE_EXTRA_STORES": str(home), "COSTROUTE_HOME": str(case.place.root / "tmp/home")}
    if case.random.random() < 0.5:
        for engine in (home / "engines").iterdir():
            seal(engine)
        case.note("hashes corrected")
    _read(case, STORE_READERS, "../bundle", environment)


def try_file(case: Case) -> None:
    """Commands on damaged images, files of prompts and tables."""
    cwd = case.place.root / "cwd"
    (cwd / "one.txt").write_text("a lake\n")
    name = case.random.choice(list(FILE_READERS))
    for _ in range(case.random.choice((1, 1, 3))):
        data = (cwd / name).read_bytes()
        (cwd / name).write_bytes(damage_text(case.random, data) if name.endswith(("csv", "txt")) else damage_image(case.random, data))
    case.note(f"changed {name}: {show((cwd / name).read_bytes(), 400)}")
    invoke(case, with_bundle(case.random.choice(FILE_READERS[name]), "../bundle"))


OFTEN_DAMAGED = {"manifest.json", "tokenizer.json", "router.json", "trust.json"}
"""Files that we or a library read in detail."""


def _damage(case: Case, folder: Path) -> None:
    files = [each for each in sorted(folder.rglob("*")) if each.is_file() and each.suffix != ".lock"]
    weights = [4 if each.name in OFTEN_DAMAGED else 1 for each in files]
    for path in dict.fromkeys(case.random.choices(files, weights, k=case.random.choice((1, 1, 1, 2, 3)))):
        if path.is_file():
            what = mutate_file(case.random, path, files)
            case.note(f"{path.relative_to(case.place.root)}: {what}")


def _read(case: Case, readers: tuple[list[str], ...], bundle: str, environment: dict[str, str | None] | None = None) -> None:
    for arguments in case.random.sample(readers, case.random.choice((1, 2, 3))):
        invoke(case, with_bundle(arguments, bundle), environment)
    case.problems += case.place.problems(case.template, may_change={"user", "bundle", "routed"})


CLOSED = ("stdin closed", "stdout closed", "stderr closed", "stdout full", "stderr full", "reader of stdout gone", "all closed")


def try_process(case: Case) -> None:
    """A real process: closed streams, other locales and folders, limits of the system, interrupts."""
    odd_paths = case.place.make_odd_paths()
    digests = [each.name for each in (case.place.root / "home/engines").iterdir()]
    arguments = [process_argument(each) for each in draw_command(case.random, odd_paths, digests)]
    changes = draw_environment(case.random, case.place)
    changes |= case.random.choice(
        (
            {},
            {"LC_ALL": "C"},
            {"PYTHONIOENCODING": "ascii"},
            {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
            {"PYTHONIOENCODING": "latin-1"},
        )
    )
    trick, amount = draw_trick(case.random)
    case.note(f"process {show(arguments, 2000)} environment={show(changes)} {trick} {amount}")
    code, output = run_process(case, [sys.executable, "-m", "costroute_rt.cli", *arguments], changes, trick, amount)
    if code is None:
        case.problems.append(f"hangs: {output[-3000:]}")
    elif trick == "terminate":
        pass
    elif code not in (-signal.SIGINT,) or trick != "interrupt":
        case.check_code(code, output)
    is_ours = "costroute_rt" in output  # otherwise the interpreter was interrupted before it came to us
    may_trace = bool(changes.get("COSTROUTE_TRACEBACK")) or (trick == "interrupt" and not is_ours)
    case.check_output(output, may_trace=may_trace)
    if trick not in ("terminate",):
        case.problems += case.place.problems(case.template, may_change=changed_by(arguments))


def process_argument(text: str) -> str:
    """The text as a process can get it: without NUL, of limited length, and as bytes that are not UTF-8 where it cannot be encoded."""
    return text.replace("\0", "0").encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")[:100_000]


TRICKS: dict[str, tuple[int, ...]] = {
    "": (0,),
    **dict.fromkeys(CLOSED, (0,)),
    "cwd deleted": (0,),
    "files open at once": (5, 6, 8, 10, 12, 16, 24, 40),
    "bytes in a file": (0, 100, 1000, 50_000, 300_000),
    "umask": (0o777, 0o277, 0o077),
    "bytes of memory": tuple(megabytes << 20 for megabytes in (100, 200, 300, 400, 500, 700, 1000)),
    "interrupt": (20, 100, 200, 300, 400, 600, 800, 1000, 1300),
    "terminate": (100, 500, 1000),
    "terminal of columns": (0, 1, 2, 10, 80, 1000),
}
"""Odd circumstances, each with amounts: limits, or milliseconds until a signal."""


def draw_trick(random: Random) -> tuple[str, int]:
    trick = random.choice(list(TRICKS))
    return trick, random.choice(TRICKS[trick])


class Limits:
    """What the child process sets for itself before it becomes the command."""

    def __init__(self, trick: str, amount: int) -> None:
        self._trick, self._amount = trick, amount

    def __call__(self) -> None:
        import resource

        limits = {
            "files open at once": resource.RLIMIT_NOFILE,
            "bytes in a file": resource.RLIMIT_FSIZE,
            "bytes of memory": resource.RLIMIT_AS,
        }
        if self._trick in limits:
            resource.setrlimit(limits[self._trick], (self._amount, self._amount))
        elif self._trick == "umask":
            os.umask(self._amount)
        elif self._trick.endswith(" closed"):
            numbers = {"stdin": (0,), "stdout": (1,), "stderr": (2,), "all": (0, 1, 2)}[self._trick.split()[0]]
            for number in numbers:
                os.close(number)


def run_process(case: Case, command: list[str], changes: dict[str, str | None], trick: str, amount: int) -> tuple[int | None, str]:
    """Exit code (None: it had to be killed) and what was printed."""
    cwd, log = case.place.root / "cwd", case.place.root / "tmp" / "output"
    environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **case.place.environment, **changes}
    kept = {name: value for name, value in environment.items() if value is not None}
    if trick == "cwd deleted":
        cwd = case.place.root / "odd" / "gone"
        cwd.mkdir()
        command = ["/bin/sh", "-c", 'rmdir ../gone; exec "$@"', "sh", *command]
    with ExitStack() as stack:
        file = stack.enter_context(open(log, "wb"))
        stack.enter_context(fifos(case.place))
        streams = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file, **odd_streams(stack, trick, amount, file)}
        process = subprocess.Popen(command, cwd=cwd, env=kept, preexec_fn=Limits(trick, amount), start_new_session=True, **streams)
        if trick in ("interrupt", "terminate"):
            time.sleep(amount / 1000)
            process.send_signal(signal.SIGINT if trick == "interrupt" else signal.SIGTERM)
        try:
            code: int | None = process.wait(PROCESS_LIMIT_S)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code, log.read_bytes().decode("utf-8", "replace") if log.exists() else ""


def odd_streams(stack: ExitStack, trick: str, amount: int, log: Any) -> dict[str, Any]:
    """Standard streams other than files: closed on the other side, full, or a terminal whose output goes to the log."""
    if trick.endswith("full"):
        return {trick.split()[0]: stack.enter_context(open("/dev/full", "wb"))}
    if trick == "reader of stdout gone":
        reader, writer = os.pipe()
        os.close(reader)
        stack.callback(os.close, writer)
        return {"stdout": writer}
    if not trick.startswith("terminal"):
        return {}
    screen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, amount))
    reading = threading.Thread(target=copy_screen, args=(screen, log))
    reading.start()
    stack.callback(reading.join)
    stack.callback(os.close, terminal)
    return dict.fromkeys(("stdin", "stdout", "stderr"), terminal)


def copy_screen(screen: int, log: Any) -> None:
    """Keeps what is written to a terminal, until all who can write have closed it."""
    with suppress(OSError):
        while data := os.read(screen, 1 << 16):
            log.write(data)
    os.close(screen)


KINDS: dict[str, tuple[float, Callable[[Case], None]]] = {
    "command": (0.35, try_command),
    "bundle": (0.15, try_bundle),
    "graphs": (0.08, try_graphs),
    "store": (0.12, try_store),
    "file": (0.13, try_file),
    "api": (0.12, try_calls),
    "reading": (0.1, try_readers),
    "process": (0.03, try_process),
}
"""Share of the cases, and what makes one."""


def draw_kind(random: Random) -> str:
    return random.choices(list(KINDS), [share for share, _ in KINDS.values()])[0]
