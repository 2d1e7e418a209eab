"""What the Dockerfile promises, as far as it can be seen without building it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tomllib

pytest.importorskip("uvicorn", reason='the container runs the server: pip install "costroute-rt[serve]"')

from costroute_rt.cli.main import cli
from costroute_rt.cli.server.guard import OPEN_PATHS

ROOT = Path(__file__).parent.parent


def read_instructions() -> list[tuple[str, str]]:
    """Instruction and arguments of each line, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(first, rest.strip()) for first, _, rest in (line.partition(" ") for line in lines)]


def last(name: str) -> str:
    return [rest for instruction, rest in read_instructions() if instruction == name][-1]


def test_the_command_exists_and_needs_a_token_that_the_user_gives() -> None:
    program, name, *arguments = [*json.loads(last("ENTRYPOINT")), *json.loads(last("CMD"))]
    assert program == "costroute-rt"
    context = cli.commands[name].make_context(name, arguments)
    assert (context.params["host"], context.params["warm"]) == ("0.0.0.0", True)
    assert context.params["token_file"]


def test_it_does_not_run_as_root_and_keeps_its_engines_in_the_volume() -> None:
    user = last("USER").partition(":")[0]
    assert user.isdigit()
    assert int(user) > 0
    assert f"COSTROUTE_HOME={last('VOLUME')}" in last("ENV")


def test_the_health_check_asks_an_address_that_needs_no_token() -> None:
    asked = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", last("HEALTHCHECK"))
    assert asked is not None
    assert (asked[1], asked[2] in OPEN_PATHS) == (last("EXPOSE"), True)


def test_the_build_gets_what_the_package_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {*project["tool"]["setuptools"]["package-dir"].values(), *project["project"]["license-files"], project["project"]["readme"]}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    assert needed | {"pyproject.toml", "setup.py"} == kept
