"""`examples/electron`: its client against the real server, in Node; and its page in a browser, with the client and the server behind it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node_tests import NODE, needs_node, run_node_tests

FOLDER = Path(__file__).parents[2] / "examples" / "electron"
BRIDGE = Path(__file__).with_name("electron_bridge.mjs")
PRELOAD = """
const call = (name) => async (job = {}) => (await fetch(`/${name}`, { method: "POST", body: JSON.stringify(job) })).json();
const take = (listener) => (new EventSource("/events").onmessage = (event) => listener(JSON.parse(event.data)));
window.costroute = { ready: call("ready"), route: call("route"), generate: call("generate"), cancel: call("cancel"), onEvent: take };
"""

pytestmark = [needs_node, pytest.mark.slow]


def options_of(bundle: Path) -> str:
    """Options of the example's client, as JSON."""
    return json.dumps({"command": [sys.executable, "-m", "costroute_rt.cli"], "args": ["--bundle", str(bundle)]})


def test_client(tiny_bundle: Path, home: Path) -> None:
    run_node_tests(FOLDER, "client.test.js", COSTROUTE_TEST=options_of(tiny_bundle))


@pytest.fixture
def address(tiny_bundle: Path, home: Path) -> Iterator[str]:
    """Where a stand-in for Electron serves the page."""
    command = [str(NODE), str(BRIDGE), str(FOLDER), options_of(tiny_bundle)]
    bridge = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert bridge.stdout is not None
    try:
        yield bridge.stdout.readline().strip()
    finally:
        bridge.communicate(timeout=60)
    assert bridge.returncode == 0


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    """The example's page; what its console complains of fails the test."""
    from tests.cli.server.browser import PATIENCE_MS, open_browser

    with open_browser() as browser:
        # Its rules let it fetch nothing; the stand-in for Electron's channel has to.
        context = browser.new_context(viewport={"width": 960, "height": 720}, bypass_csp=True)
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(PRELOAD)
        found, complaints = context.new_page(), list[str]()
        found.on("pageerror", lambda error: complaints.append(str(error)))
        found.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        found.goto(address)
        found.wait_for_selector("#generate:enabled")
        yield found
        assert complaints == []


def wait_for_text(page: Any, selector: str, pattern: str) -> str:
    """The text of an element, once it matches."""
    page.locator(selector).filter(has_text=re.compile(pattern)).wait_for()
    return str(page.text_content(selector))


def test_page(page: Any) -> None:
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
    assert page.is_visible("#save")


def test_page_within_a_time(page: Any) -> None:
    wait_for_text(page, "#route", "about")
    page.focus("#time")
    page.keyboard.press("Home")
    wait_for_text(page, "#route", r"^Nothing is so fast: \S+ needs up to \d+ ms$")
    assert re.fullmatch(r"at most \d+ ms", page.get_attribute("#time", "aria-valuetext"))
    page.click("#generate")
    wait_for_text(page, "#status", r"exceeds|fits")
    assert page.is_hidden("#image")
    page.keyboard.press("Escape")
    page.focus("#time")
    page.keyboard.press("End")
    wait_for_text(page, "#route", "about")
    page.click("#generate")
    wait_for_text(page, "#status", "seed")
