"""Write THIRD_PARTY_LICENSES into a frozen folder, from what is really in it.

    python licenses.py FOLDER

Run in the environment that the folder was frozen in. Every file, and every module inside the programs, must belong to something whose
licence is known: a distribution (by the RECORD of its dist-info), Python, or a package of the system (Debian's). Otherwise nothing is
written, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

NAME = "THIRD_PARTY_LICENSES"
INTERNAL = "_internal"
OURS = ("costroute_qt", "program")
"""Modules of the example itself, which are under costroute-rt's licence."""
STANDARD = {"Apache": ("Apache-2.0",), "LGPL-3.0": ("LGPL-3.0", "GPL-3.0")}
"""Texts for distributions that name their licence and bring no text; LGPL 3 is an addition to GPL 3."""
_TEXT = re.compile(r"^(LICEN[CS]E|COPYING|NOTICE|ThirdPartyNotices)", re.IGNORECASE)
_PYTHON = re.compile(r"^(base_library\.zip|libpython[\d.]*\.(so|dylib)[\d.]*|python3\d*\.dll|Python|(python3\.\d+/)?lib-dynload/.*)$")
_BOOT = re.compile(r"^(_pyi_|pyi_|pyiboot|pyimod)")


class UnknownLicense(Exception):
    """Something in the folder belongs to nothing that is known, or has no text."""


@dataclass
class Part:
    """Something with a licence of its own."""

    title: str
    license: str
    texts: list[str]
    files: set[str] = field(default_factory=set)


class Owners:
    """Who a file or module belongs to."""

    def __init__(self) -> None:
        self._by_path: dict[str, Distribution] = {}
        for each in distributions():
            for path in each.files or ():
                self._by_path.setdefault(path.as_posix(), each)

    def of_file(self, path: str) -> Part | None:
        """path: relative to the folder's `_internal`."""
        if _PYTHON.match(path):
            return python()
        found = self._by_path.get(path)
        return distribution(found.name) if found is not None else system_library(PurePosixPath(path).name)

    def of_module(self, name: str) -> Part | None:
        top, path = name.partition(".")[0], name.replace(".", "/")
        if top in OURS:
            return distribution("costroute-rt")
        if _BOOT.match(top):
            return distribution("pyinstaller")
        found = self._by_path.get(f"{path}.py") or self._by_path.get(f"{path}/__init__.py")
        if found is not None:
            return distribution(found.name)
        inside = {each.name for place, each in self._by_path.items() if place.startswith(f"{path}/")}
        if inside:  # a namespace without a file of its own
            return distribution(min(inside))
        return python() if top in sys.stdlib_module_names or top.startswith("_sysconfigdata_") else None


@cache
def distribution(name: str) -> Part:
    """An installed distribution, with every text about licences in it."""
    found = Distribution.from_name(name)
    classifiers = [each.rpartition(" :: ")[2] for each in found.metadata.get_all("Classifier") or () if each.startswith("License ::")]
    license = found.metadata.get("License-Expression") or ", ".join(classifiers) or found.metadata.get("License") or ""
    paths = [path for path in found.files or () if _TEXT.match(path.name) and path.suffix not in (".py", ".pyc")]
    texts = [Path(str(found.locate_file(path))).read_text(encoding="utf-8", errors="replace") for path in sorted(paths)]
    if not texts:
        names = next((names for start, names in STANDARD.items() if license.startswith(start)), ())
        texts = [(Path(__file__).parent / "texts" / f"{each}.txt").read_text(encoding="utf-8") for each in names]
    if not texts:
        raise UnknownLicense(f"{name} ({license or 'no licence named'}) brings no text of its licence: add one to STANDARD")
    return Part(f"{found.name} {found.version}", license or "see the text", texts)


@cache
def python() -> Part:
    """The interpreter and its standard library."""
    version = ".".join(map(str, sys.version_info[:3]))
    candidates = [Path(sys.base_prefix, "LICENSE.txt"), *Path(sys.base_prefix).glob("lib/python3*/LICENSE.txt")]
    candidates += Path("/usr/share/doc").glob(f"python3.{sys.version_info.minor}*/copyright")
    for path in candidates:
        if path.is_file():
            return Part(f"Python {version}", "PSF-2.0", [path.read_text(encoding="utf-8", errors="replace")])
    raise UnknownLicense(f"the licence of Python {version} was not found below {sys.base_prefix}")


@cache
def system_library(name: str) -> Part | None:
    """A shared library of the system, by its name, from Debian's packages."""
    for path in _libraries().get(name, ()):
        resolved = path.resolve()
        for place in (resolved, "/" / resolved.relative_to("/usr")) if resolved.is_relative_to("/usr") else (resolved,):  # /lib is /usr/lib
            package = _run("dpkg", "-S", str(place)).partition(":")[0]
            if package and Path("/usr/share/doc", package, "copyright").is_file():
                return _debian_package(package)
    return None


@cache
def _debian_package(package: str) -> Part:
    text = Path("/usr/share/doc", package, "copyright").read_text(encoding="utf-8", errors="replace")
    named = sorted(set(re.findall(r"/usr/share/common-licenses/([\w.+-]*\w)", text)))
    common = [path.read_text(encoding="utf-8") for each in named if (path := Path("/usr/share/common-licenses", each)).is_file()]
    version = _run("dpkg-query", "-W", "-f", "${Version}", package)
    return Part(f"{package} {version} (Debian)", "see the text", [text, *common])


@cache
def _libraries() -> dict[str, list[Path]]:
    found = defaultdict(list)
    for name, path in re.findall(r"^\s*(\S+) \(.*\) => (\S+)$", _run("ldconfig", "-p"), re.MULTILINE):
        found[name].append(Path(path))
    return found


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}).stdout
    except FileNotFoundError:  # not Debian
        return ""


def list_modules(program: Path) -> Iterator[str]:
    """The modules inside a program that PyInstaller made."""
    from PyInstaller.archive.readers import CArchiveReader

    archive = CArchiveReader(str(program))
    for name, (*_, kind) in archive.toc.items():
        if kind in ("m", "M", "s", "s1", "s2"):
            yield name
        elif kind == "z":
            yield from archive.open_embedded_archive(name).toc


def account(folder: Path) -> list[Part]:
    """Everything in the folder, by whom it belongs to. Raises UnknownLicense."""
    owners, parts, unknown = Owners(), dict[str, Part](), list[str]()
    boot = distribution("pyinstaller")
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.is_symlink() or path.is_dir() or place.name == NAME:
            continue
        if place.parts[0] == INTERNAL:
            found = {place.as_posix(): owners.of_file(place.relative_to(INTERNAL).as_posix())}
        else:
            found = {place.as_posix(): boot} | {f"{place}: {name}": owners.of_module(name) for name in list_modules(path)}
        for thing, part in found.items():
            if part is None:
                unknown.append(thing)
            else:
                parts.setdefault(part.title, part).files.add(thing)
    if unknown:
        raise UnknownLicense("these belong to nothing whose licence is known:\n  " + "\n  ".join(unknown))
    return sorted(parts.values(), key=lambda part: part.title.lower())


def write(folder: Path, parts: list[Part]) -> Path:
    """The list of everything, then each text once."""
    used = defaultdict(list)
    for part in parts:
        for text in part.texts:
            used[text.strip()].append(part.title)
    numbers = {text: number for number, text in enumerate(used, 1)}
    lines = ["This folder contains the following. The texts are below, by their numbers.", ""]
    for part in parts:
        texts = ", ".join(str(numbers[text.strip()]) for text in part.texts)
        lines.append(f"{part.title}: {part.license.splitlines()[0]} (text {texts}; {len(part.files)} files or modules)")
    lines += [
        "",
        "Qt and PySide6 are used under the GNU Lesser General Public License, version 3. Their libraries are files of their own in",
        f"{INTERNAL}/PySide6 and {INTERNAL}/shiboken6, and may be replaced by other builds of the same version. Their source is at",
        "https://download.qt.io/official_releases/; what they contain of others is listed at https://doc.qt.io/qt-6/licenses-used-in-qt.html.",
    ]
    for text, number in numbers.items():
        lines += ["", "=" * 100, f"{number}. {', '.join(used[text])}", "=" * 100, "", text]
    target = folder / NAME
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the licences of everything inside a frozen folder.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    try:
        parts = account(folder)
    except UnknownLicense as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 1
    sys.stdout.write(f"{write(folder, parts)}: {len(parts)} parts\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
