"""Commands on damaged files: bundles, graphs, stores, images, tables."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.fuzz.case import Case, invoke
from tests.fuzz.mutation import damage_image, damage_text, mutate_file, mutate_graph, mutate_safetensors, seal
from tests.fuzz.odd import show


def commands(text: str) -> list[list[str]]:
    """The command lines in a text."""
    return [shlex.split(line) for line in text.splitlines() if line.strip()]


STORE_READERS = commands("""
    engines list
    engines list --json
    engines verify
    engines verify --json
    engines gc --max-gb 0
    engines gc --max-gb 0.0003 --dry-run
    engines explain
    engines rm --all
    gen "a lake" --no-build
    gen "a lake"
    gen "a lake" --max-ms 100 -o out.png
    gen --prompts lines.txt --mean-ms 50 -o out
    route "a lake"
    route "a lake" --max-ms 30
    build-engines
    build-engines --dry-run
    build-engines --force
    profile
    doctor
""")
LABEL = "label --prompts prompts.csv --scorer fuzz_scorer:brightness --seeds 1"
BUNDLE_READERS = STORE_READERS + commands(f"""
    fit-router --labels labels.csv --encoder hashed -o made
    fit-router --labels labels.csv -o made
    eval-router --labels heldout.csv
    {LABEL} --labels new.csv
    label --prompts prompts.csv --labels new.csv --seeds 1
    build-engines --height 64 --width 96
""")
GRAPH_READERS = commands(f"""
    build-engines
    build-engines --backend openvino
    gen "a lake"
    gen "a lake" --candidate tiny-turbo@1 -o out.png
    gen "a lake" --candidate tiny-base@4 -o out.png
    route "a lake"
    {LABEL} --labels new.csv
""")
FILE_READERS = {
    **{
        name: commands(f"""
            info {name}
            info {name} --json
            gen --prompts one.txt -o {name}
            gen --prompts lines.txt -o {name}
        """)
        for name in ("image.png", "image.jpg", "image.webp")
    },
    "lines.txt": commands("""
        gen --prompts lines.txt -o out
        gen --prompts lines.txt --total-s 5 -o out --json
    """),
    "prompts.csv": commands(f"{LABEL} --labels new.csv"),
    "labels.csv.gz": commands("""
        fit-router --labels labels.csv.gz --encoder hashed -o made
        eval-router --labels labels.csv.gz
    """),
    "labels.csv": commands(f"""
        fit-router --labels labels.csv --encoder hashed -o made
        fit-router --labels labels.csv -o made --category category
        {LABEL} --labels labels.csv
        eval-router --labels labels.csv
        eval-router --labels labels.csv --category category --json
    """),
}
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


def _read(case: Case, readers: list[list[str]], bundle: str, environment: dict[str, str | None] | None = None) -> None:
    for arguments in case.random.sample(readers, case.random.choice((1, 2, 3))):
        invoke(case, with_bundle(arguments, bundle), environment)
    case.problems += case.place.problems(case.template, may_change={"user", "bundle", "routed"})
