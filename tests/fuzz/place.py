"""Folders of a case: a copy of a bundle, of the store with its engines, and of the files that commands read."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from costroute_rt import Runtime
from costroute_rt.cli.main import cli
from tests.export.router.label_text import write_labels
from tests.tiny_bundle import write_tiny_bundle

NAMES = ("tiny-turbo@1", "tiny-turbo@2", "tiny-base@4", "tiny-base@8")
SCORER = "def brightness(pixels, prompt):\n    return pixels.mean() / 255\n"
LEFTOVER = re.compile(r"^\..*\.[0-9a-f]{16}$|\.tmp$")
"""Names of temporary files and folders, as `durable` and `image_file` make them."""
ENTRIES = {"cwd", "home", "user", "tmp", "bundle", "routed", "odd"}


def make_template(root: Path) -> Path:
    """A folder with all that a case may need; it is copied for each."""
    write_tiny_bundle(root / "bundle")
    for name in ("cwd", "user", "tmp", "odd"):
        (root / name).mkdir()
    cwd, home = root / "cwd", root / "home"
    (cwd / "labels.csv").write_text(write_labels(NAMES, count=40))
    (cwd / "heldout.csv").write_text(write_labels(NAMES, first=80, count=12))
    (cwd / "labels.csv.gz").write_bytes(gzip.compress((cwd / "labels.csv").read_bytes(), mtime=0))
    (cwd / "prompts.csv").write_text("prompt_id,prompt,category\np1,a red house,a\np2,a lake,b\n")
    (cwd / "lines.txt").write_text("a red house\n\n# a comment\na lake at night\n")
    (cwd / "fuzz_scorer.py").write_text(SCORER)
    environment = {"COSTROUTE_HOME": str(home)}
    options = ["--bundle", str(root / "bundle"), "--labels", str(cwd / "labels.csv"), "--encoder", "hashed", "-o", str(root / "routed")]
    for arguments in (["build-engines", "--bundle", str(root / "bundle")], ["fit-router", *options]):
        done = CliRunner().invoke(cli, arguments, env=environment, prog_name="costroute-rt")
        if done.exit_code:
            raise RuntimeError(f"{arguments}: {done.output}")
    with Runtime.open(root / "bundle", home=home) as runtime:
        result = runtime.generate("a lake", seed=7)
        for suffix in ("png", "jpg", "webp"):
            result.save(cwd / f"image.{suffix}")
    return root


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of one case."""

    root: Path

    @classmethod
    def make(cls, template: Path, root: Path) -> Place:
        shutil.copytree(template, root, symlinks=True)
        return cls(root)

    @property
    def environment(self) -> dict[str, str | None]:
        """Variables that keep everything inside the case's folders."""
        names: dict[str, str | None] = {"COSTROUTE_HOME": str(self.root / "home"), "HOME": str(self.root / "user")}
        return {
            **names,
            "TMPDIR": str(self.root / "tmp"),
            "XDG_CACHE_HOME": None,
            "COSTROUTE_EXTRA_STORES": None,
            "COSTROUTE_TRACEBACK": None,
        }

    def make_odd_paths(self) -> list[str]:
        """Files that are no plain files, made in the folder `odd`."""
        odd = self.root / "odd"
        (odd / "folder").mkdir()
        (odd / "empty").touch()
        (odd / "text").write_text("a lake\n")
        (odd / "binary").write_bytes(bytes(range(256)) * 20)
        (odd / "closed").write_text("a lake\n")
        (odd / "closed").chmod(0)
        (odd / "dangling").symlink_to("nowhere")
        (odd / "loop").symlink_to("loop")
        (odd / "link").symlink_to("../cwd/image.png")
        (odd / "above").symlink_to("..")
        os.mkfifo(odd / "fifo")
        strange = ["new\nline.txt", "quo'te\".png", " ", "-dash", "caf\udce9", "\u202e.png", "🏠.csv", "{slug}.png", "%s", "x" * 255]
        for name in strange:
            with suppress(OSError, UnicodeEncodeError):
                (odd / name).write_text("a lake\n")
        for name, minor in (("null", 3), ("full", 7), ("zero", 5)):  # copies, so that nothing replaces the machine's own
            with suppress(OSError):
                os.mknod(odd / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        names = [each.name for each in sorted(odd.iterdir())] + [
            "missing",
            "missing/x.png",
            "text/x",
            "null/x",
            "x" * 256,
            "a/" * 3000,
            "loop/x.png",
        ]
        return [f"../odd/{name}" for name in names] + [
            str(odd / "empty"),
            "../odd/../odd/text",
            "../odd/text/",
            "./lines.txt",
            "lines.txt/.",
            "\0",
            "a\0b.png",
        ]

    def make_or_list_odd_paths(self) -> list[str]:
        """The same files, made at the first call."""
        odd = self.root / "odd"
        return [f"../odd/{each.name}" for each in sorted(odd.iterdir())] if (odd / "folder").exists() else self.make_odd_paths()

    def problems(self, template: Path, *, may_change: set[str]) -> list[str]:
        """What a command left where it should not have: temporary files, and changes outside the folders that it may change."""
        found = sorted(each.name for each in self.root.iterdir())
        problems = [f"unexpected entry beside the case's folders: {name!r}" for name in found if name not in ENTRIES]
        for folder, folders, files in os.walk(self.root):
            problems += [f"left behind: {os.path.join(folder, name)!r}" for name in (*folders, *files) if LEFTOVER.search(name)]
        for name in {"bundle", "routed", "user"} - may_change:
            if fingerprint(self.root / name) != fingerprint(template / name):
                problems.append(f"changed: {name}")
        return problems

    def remove(self) -> None:
        for folder, _, _ in os.walk(self.root):
            with suppress(OSError):
                os.chmod(folder, 0o700)
        shutil.rmtree(self.root, ignore_errors=True)


def fingerprint(folder: Path) -> dict[str, str]:
    """Hash of each file below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        elif path.is_file():
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


class FifoWriter:
    """Answers every reader of a named pipe once with the same bytes, so that reading it ends."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path, self._data, self._is_over = path, data, False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        is_answered = False
        while not self._is_over:
            try:
                handle = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads
                is_answered = False
            else:
                with suppress(OSError):
                    os.write(handle, b"" if is_answered else self._data)
                os.close(handle)
                is_answered = True
            time.sleep(0.01)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()


def forget_temporary_folder() -> None:
    """`tempfile` looks at TMPDIR once in a process."""
    tempfile.tempdir = None
