"""`examples/electron`: its client against the real server, in Node; and the whole of it in a browser, without Electron itself."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node_tests import NODE, needs_node, run_node_tests

FOLDER = Path(__file__).parents[2] / "examples" / "electron"
STAND_IN = Path(__file__).with_name("stand_in")
COMMAND = [sys.executable, "-m", "costroute_rt.cli"]

pytestmark = [needs_node, pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="starts the server by a shell script")]


def test_client(tiny_bundle: Path, home: Path) -> None:
    given = {"command": COMMAND, "args": ["--bundle", str(tiny_bundle)]}
    run_node_tests(FOLDER, "client.test.js", COSTROUTE_TEST=json.dumps(given))


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """A copy of the example in which Electron's module is a stand-in."""
    folder = Path(shutil.copytree(FOLDER, tmp_path / "app", ignore=shutil.ignore_patterns("node_modules")))
    module = folder / "node_modules" / "electron"
    module.mkdir(parents=True)
    shutil.copy(STAND_IN / "electron.js", module / "index.js")
    (module / "package.json").write_text('{"type": "module", "main": "index.js"}')
    return folder


@pytest.fixture
def started(application: Path, tiny_bundle: Path, home: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The main process: where its page is served, and its script before the page."""
    program = tmp_path / "costroute-rt"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@" --bundle {shlex.quote(str(tiny_bundle))}\n')
    program.chmod(0o755)
    variables = {**os.environ, "COSTROUTE_COMMAND": str(program), "SAVE_AS": str(tmp_path / "saved.png")}
    main = subprocess.Popen(
        [str(NODE), str(application / "main.js")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
    )
    assert main.stdout is not None
    try:
        yield json.loads(main.stdout.readline())
    finally:
        main.communicate(timeout=60)
    assert main.returncode == 0


@pytest.fixture
def page(started: dict[str, str]) -> Iterator[Any]:
    """The example's page; what its console complains of fails the test."""
    from tests.cli.server.browser import PATIENCE_MS, open_browser

    with open_browser() as browser:
        # Its rules let it fetch nothing; the stand-in for Electron's channel has to.
        context = browser.new_context(viewport={"width": 960, "height": 720}, bypass_csp=True)
        context.set_default_timeout(PATIENCE_MS)
        scripts = (STAND_IN / "preload.js").read_text() + Path(started["preload"]).read_text()
        context.add_init_script("{" + scripts + "}")
        found, complaints = context.new_page(), list[str]()
        found.on("pageerror", lambda error: complaints.append(str(error)))
        found.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        found.goto(started["url"])
        found.wait_for_selector("#generate:enabled")
        yield found
        assert complaints == []


def wait_for_text(page: Any, selector: str, pattern: str) -> str:
    """The text of an element, once it matches."""
    page.locator(selector).filter(has_text=re.compile(pattern)).wait_for()
    return str(page.text_content(selector))


def test_page(page: Any, tmp_path: Path) -> None:
    page.fill("#prompt", "a red house by a lake")
    chosen = wait_for_text(page, "#route", r"^\S+@\d+, about \d").partition(",")[0]
    page.click("#generate")
    assert wait_for_text(page, "#status", rf"^{chosen}, .*, seed \d+$")
    assert page.get_attribute("#image", "src").startswith("data:image/png;base64,")
    assert page.get_attribute("#image", "alt") == "a red house by a lake"
    page.wait_for_function("document.getElementById('image').naturalWidth > 0")
    page.press("#prompt", "Enter")
    page.wait_for_function("document.getElementById('history').children.length === 2")
    page.click("#history li:last-child button")
    assert page.is_hidden("#cancel")
    page.click("#save")
    wait_for_text(page, "#status", r"^saved as .*saved\.png$")
    assert (tmp_path / "saved.png").read_bytes().startswith(b"\x89PNG")


def change_first_route(page: Any, change: Callable[[dict[str, Any]], None]) -> None:
    """Load the page again, with each option of its first route changed: what fits on a busy machine would be luck."""

    def fulfill(route: Any) -> None:
        answer = route.fetch()
        found = answer.json()
        for option in found["result"]["options"]:
            change(option)
        route.fulfill(response=answer, json=found)

    page.route("**/route", fulfill, times=1)
    page.reload()


def test_page_where_nothing_fits(page: Any) -> None:
    change_first_route(page, lambda option: option.update(fits=False))
    wait_for_text(page, "#route", r"^Nothing is so fast: \S+ needs up to [\d.]+ ms$")


def test_page_within_a_time(page: Any) -> None:
    change_first_route(page, lambda option: option.update(p95_ms=option["p95_ms"] / 100))
    wait_for_text(page, "#route", "about")
    page.focus("#time")
    page.keyboard.press("Home")
    wait_for_text(page, "#route", "^Max_ms of .* was over before the request had arrived")
    limit = page.get_attribute("#time", "aria-valuetext")
    assert re.fullmatch(r"at most [\d.]+ ms", limit)
    page.click("#generate")
    wait_for_text(page, "#status", "^Max_ms")
    assert page.is_hidden("#image")
    assert page.text_content("#limit") == limit
    page.focus("#time")
    page.keyboard.press("End")
    wait_for_text(page, "#route", "about")
    page.click("#generate")
    wait_for_text(page, "#status", "seed")
