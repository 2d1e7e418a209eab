"""A headless Chromium for tests of the page: what it asks for, what its console says, and helpers that wait."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cli.server.conftest import TOKEN, Running

PATIENCE_MS = 60_000
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
WIDE, PHONE = {"width": 1360, "height": 860}, {"width": 360, "height": 740}
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_REFUSED = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")


@contextmanager
def open_browser() -> Iterator[Any]:
    """Chromium as the system has it; the test is skipped with a reason where it or the library that drives it is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason='tests of the page: pip install "costroute-rt[browser]"')
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip(f"tests of the page need a browser: none of {', '.join(_NAMES)} is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """One page of the server in a browser, with everything that it asked for and complained of."""

    def __init__(self, browser: Any, server: Running, **options: Any) -> None:
        self.server, self.complaints, self.asked, self.refused = server, list[str](), list[Any](), list[int]()
        self.context = browser.new_context(**{"viewport": WIDE, "color_scheme": "light", **options})
        self.context.set_default_timeout(PATIENCE_MS)
        self.may_lose_server = False
        self.page = self.context.new_page()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request))

    def _note(self, message: Any) -> None:
        refused = _REFUSED.match(message.text)
        if self.may_lose_server and "net::ERR_" in message.text:
            return
        if message.type in ("error", "warning"):
            self.refused.append(int(refused.group(1))) if refused else self.complaints.append(message.text)

    def open(self) -> Tab:
        """Follow the link that `serve` prints, and wait for the first route."""
        self.page.goto(f"{self.server.url}/?token={TOKEN}")
        return self.ready()

    def reload(self) -> Tab:
        self.page.reload()
        return self.ready()

    def ready(self) -> Tab:
        self.page.wait_for_selector('#choice[aria-busy="false"]')
        return self

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """What was sent to an address, as plain data."""
        return [request.post_data_json for request in self.asked if urlsplit(request.url).path == path and request.method == "POST"]

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def wait_for_text(self, selector: str, pattern: str) -> str:
        """The text of an element, once it matches."""
        self.page.locator(selector).filter(has_text=re.compile(pattern)).wait_for(state="attached")
        return str(self.page.text_content(selector))

    def wait_until(self, script: str, argument: Any = None) -> Any:
        """What a function in the page returns, once that is true."""
        for _ in range(PATIENCE_MS // 20):
            found = self.page.evaluate(script, argument)
            if found:
                return found
            self.page.wait_for_timeout(20)
        raise AssertionError(f"it did not become true: {script}")

    def write(self, prompt: str) -> None:
        """Type a prompt, and wait until its route is shown."""

        def is_its_route(answer: Any) -> bool:
            return bool(answer.url.endswith("/v1/route") and answer.request.post_data_json["prompt"] == prompt)

        with self.page.expect_response(is_its_route):
            self.page.fill("#prompt", prompt)
        self.ready()

    def spoken(self) -> Callable[[], list[str]]:
        """Begins to note what the live region says; call the result for what it has said."""
        self.page.evaluate(
            """() => {
              window.spoken = [];
              const live = document.getElementById("live");
              const observer = new MutationObserver(() => window.spoken.push(live.textContent));
              observer.observe(live, { childList: true, characterData: true, subtree: true });
            }"""
        )
        return lambda: list(self.page.evaluate("() => window.spoken"))

    def drop(self, selector: str, data: bytes, name: str, kind: str) -> None:
        """Drop a file on an element."""
        transfer = self.page.evaluate_handle(
            """([data, name, type]) => {
              const transfer = new DataTransfer();
              transfer.items.add(new File([new Uint8Array(data)], name, { type }));
              return transfer;
            }""",
            [list(data), name, kind],
        )
        for event in ("dragenter", "dragover", "drop"):
            self.page.dispatch_event(selector, event, {"dataTransfer": transfer})
