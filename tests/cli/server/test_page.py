"""The page in a browser: type, slide, generate, cancel, compare, reload; what is spoken, and what axe-core finds."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.export.router.vote_table import VoteTable
from costroute_rt.image_settings import read_settings
from tests.cli.server.browser import PHONE, Tab, open_browser
from tests.cli.server.conftest import Gate, Running, Serve
from tests.runtime.fakes import FakeDevice, open_fake_runtime

pytestmark = pytest.mark.slow
AXE = pytest.importorskip("axe_playwright_python.sync_playwright", reason='tests of the page: pip install "costroute-rt[browser]"')
PROMPT = "a red house by a lake"
OpenTab = Callable[..., Tab]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as found:
        yield found


@pytest.fixture
def open_tab(browser: Any, server: Running) -> Iterator[OpenTab]:
    """Opens the page; whatever its console complains of fails the test, and so does a request to any other place."""
    tabs = list[Tab]()

    def start(**options: Any) -> Tab:
        tabs.append(Tab(browser, server, **options))
        return tabs[-1].open()

    yield start
    for tab in tabs:
        tab.context.close()
        server.wait_for(lambda: not server.server.server_state.tasks, "the end of all requests")
        assert tab.complaints == []
        assert [request.url for request in tab.asked if not request.url.startswith((server.url, "data:", "blob:"))] == []


@pytest.fixture
def tab(open_tab: OpenTab) -> Iterator[Tab]:
    """The page, which is refused nothing."""
    found = open_tab()
    yield found
    assert found.refused == []


def generate(tab: Tab, prompt: str = PROMPT) -> None:
    """Make an image and wait until it is shown."""
    tab.write(prompt)
    tab.page.click("#generate")
    tab.page.wait_for_selector("#download:visible")
    tab.wait_until("() => document.getElementById('image').naturalWidth > 0")


def slide(tab: Tab, name: str, value: int) -> None:
    tab.page.evaluate(
        """([name, value]) => {
          const slider = document.getElementById(name);
          slider.value = value;
          slider.dispatchEvent(new Event("input"));
        }""",
        [name, value],
    )


def budgets(tab: Tab) -> list[float | None]:
    return [body.get("max_ms") for body in tab.bodies("/v1/route")]


# The route


def test_typing_shows_the_route_for_the_prompt(tab: Tab) -> None:
    tab.write(PROMPT)
    assert tab.text("#choice-name") == "base@8"
    assert re.fullmatch(r"≈ 0\.\d\d s", tab.text("#choice-ms"))
    rows = [row.split("\n") for row in tab.page.locator("#rows tr").all_inner_texts()]
    assert [row[0] for row in rows] == ["turbo@1", "turbo@2", "base@4", "base@8"]
    assert all(re.search(r"0\.\d{3}.*± 0\.\d{3}.*0\.\d\d s.*up to 0\.\d\d s", " ".join(row), re.DOTALL) for row in rows)
    assert "chosen" in rows[3][1]
    assert tab.page.locator('#rows tr[aria-current="true"] th').inner_text().startswith("base@8")


def test_the_slider_decides_and_says_seconds_and_candidate(tab: Tab) -> None:
    tab.write(PROMPT)
    tab.page.focus("#time")
    seen = {}
    for _ in range(199):
        tab.page.keyboard.press("ArrowLeft")
        spoken = tab.page.get_attribute("#time", "aria-valuetext")
        seen.setdefault(spoken.partition(", ")[2], spoken)
    assert list(seen) == ["base@8, 8 steps", "base@4, 4 steps", "turbo@2, 2 steps", "turbo@1, 1 step", "no candidate is so fast"]
    assert all(re.match(r"(0\.\d\d|\d+(\.\d)?) seconds, ", text) for text in seen.values())
    with tab.page.expect_response(lambda answer: "max_ms" not in (answer.request.post_data_json or {"max_ms": None})):
        tab.page.keyboard.press("End")
    tab.wait_for_text("#time-shown", "no limit")
    assert tab.page.get_attribute("#time", "aria-valuetext") == "no limit, base@8, 8 steps"
    tab.wait_for_text("#choice-name", "base@8")
    assert budgets(tab)[-1] is None


def test_the_page_and_the_server_choose_alike(tab: Tab) -> None:
    tab.write(PROMPT)
    for button in tab.page.locator("#quick button").all():
        with tab.page.expect_response(lambda answer: answer.url.endswith("/v1/route")) as answer:
            button.click()
            guessed = tab.page.get_attribute("#time", "aria-valuetext").split(", ")[1]
        chosen = answer.value.json()["chosen"]
        assert guessed in (chosen, "no candidate is so fast")
        tab.wait_for_text("#choice-name", re.escape(chosen))
        assert button.get_attribute("aria-pressed") == "true"


def test_what_a_faster_point_gives_up_is_one_press_away(tab: Tab) -> None:
    tab.write(PROMPT)
    faster = tab.page.locator("#neighbours button").filter(has_text="Faster")
    assert re.match(r"Faster\s≈ 0\.\d\d s, quality −0\.100", faster.inner_text())
    faster.click()
    tab.wait_for_text("#choice-name", "base@4")
    tab.page.locator("#neighbours button").filter(has_text="Better").click()
    tab.wait_for_text("#choice-name", "base@8")


def test_a_candidate_that_ignores_the_negative_prompt_says_so(tab: Tab) -> None:
    tab.write(PROMPT)
    tab.page.click("#more summary")
    tab.page.fill("#negative", "trees")
    tab.page.locator('#rows button[data-candidate="turbo@2"]').click()
    assert "ignores what is to be kept out" in tab.wait_for_text("#choice-notes", "turbo@2")
    tab.page.click("#generate")
    tab.page.wait_for_selector("#download:visible")
    body = tab.bodies("/v1/jobs")[-1]
    assert (body["candidate"], body["negative_prompt"], body.get("max_ms")) == ("turbo@2", "trees", None)
    assert "negative prompt was not used" in tab.text("#shown-notes")
    tab.page.click("#unpin")
    tab.wait_for_text("#choice-name", "base@8")


def test_a_budget_that_is_too_small_is_raised_by_one_press(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.write(PROMPT)
    slide(tab, "time", 0)
    tab.wait_for_text("#choice-why", "Nothing fits in 0.0")
    tab.page.click("#generate")
    tab.wait_for_text("#notice-text", "[Nn]othing fits")
    tab.page.click("#notice-act")
    tab.page.wait_for_selector("#download:visible")
    assert tab.refused == [422]


# Jobs


def test_an_image_with_progress_preview_and_countdown(tab: Tab, device: FakeDevice) -> None:
    first, second = Gate(device, "guided_step", after=1), Gate(device, "guided_step", after=5)
    spoken = tab.spoken()
    tab.write(PROMPT)
    tab.page.evaluate(
        """() => {
          window.gaps = 0;
          window.boxes = new Set();
          const shown = (id) => {
            const image = document.getElementById(id);
            return !image.hidden && image.complete && image.naturalWidth > 0;
          };
          let hasBegun = false;
          const look = () => {
            const { width, height } = document.getElementById("box").getBoundingClientRect();
            if (hasBegun) window.boxes.add(`${width}x${height}`);
            if (hasBegun && !shown("preview") && !shown("image")) window.gaps += 1;
            hasBegun ||= shown("preview");
            requestAnimationFrame(look);
          };
          look();
        }"""
    )
    tab.page.click("#generate")
    tab.wait_for_text("#step", "step 1 of 8")
    first.open()
    tab.wait_for_text("#step", "step 5 of 8")
    assert re.fullmatch(r"0\.\d\d s to go|any moment", tab.text("#to-go"))
    assert tab.page.is_visible("#preview")
    assert tab.page.evaluate("() => document.getElementById('progress').value") == 5 / 8
    assert tab.page.locator("#tiles li.waiting").count() == 1
    tab.page.wait_for_timeout(100)
    second.open()
    tab.page.wait_for_selector("#download:visible")
    assert tab.page.get_attribute("#image", "alt") == PROMPT
    assert tab.page.is_hidden("#preview")
    assert tab.page.evaluate("() => [window.gaps, window.boxes.size]") == [0, 1]
    facts = tab.text("#facts").split("\n")
    assert facts[0] == "base@8"
    assert re.fullmatch(r"[\d.]+ s of 1\.0 s(, late)?", facts[1])
    assert facts[2] == "8 steps"
    assert tab.page.locator("#tiles li").count() == 1
    said = spoken()
    assert re.fullmatch(r"Started: base@8, about 0\.\d\d seconds\.", said[0])
    assert said[1] == "Half done."
    assert re.fullmatch(r"Done in [\d.]+ seconds: a red house by a lake", said[2])
    assert len(said) == 3


def test_cancel_and_generate_again(tab: Tab, device: FakeDevice) -> None:
    gate = Gate(device, "guided_step", after=2)
    spoken = tab.spoken()
    tab.write(PROMPT)
    tab.page.click("#generate")
    assert gate.reached.wait(60)
    tab.page.wait_for_selector("#preview:visible")
    tab.page.focus("#cancel")
    with tab.page.expect_response(lambda answer: answer.request.method == "DELETE"):
        tab.page.keyboard.press("Enter")
    gate.open()
    tab.wait_for_text("#empty-text", "Cancelled")
    assert tab.page.is_hidden("#preview")
    assert tab.page.evaluate("() => document.activeElement.id") == "box"
    assert tab.page.locator("#tiles li").count() == 0
    assert spoken()[-1] == "Cancelled."
    tab.page.click("#generate")
    tab.page.wait_for_selector("#download:visible")


def test_a_job_that_waits_shows_its_place(tab: Tab, device: FakeDevice) -> None:
    gate = Gate(device, "guided_step")
    tab.write(PROMPT)
    tab.page.click("#quick button:last-child")
    tab.page.click("#generate")
    assert gate.reached.wait(60)
    tab.write("two boats")
    tab.page.click("#generate")
    assert re.match(r"1 ahead, starts in", tab.wait_for_text("#to-go", "ahead"))
    assert tab.page.locator("#tiles li.waiting").count() == 2
    gate.open()
    tab.page.wait_for_selector("#download:visible")
    assert tab.text("#shown-prompt") == "two boats"
    tab.wait_until("() => document.querySelectorAll('#tiles li:not(.waiting)').length === 2")


def test_a_running_job_survives_a_reload(tab: Tab, device: FakeDevice) -> None:
    gate = Gate(device, "guided_step", after=3)
    tab.write(PROMPT)
    tab.page.click("#generate")
    assert gate.reached.wait(60)
    tab.wait_for_text("#step", "step 3 of 8")
    tab.reload()
    tab.wait_for_text("#step", "step 3 of 8")
    streams = [request.url for request in tab.asked if "/v1/events" in request.url]
    assert len(streams) == 2
    assert int(streams[1].rpartition("last_event_id=")[2]) > 0
    gate.open()
    tab.page.wait_for_selector("#download:visible")
    assert tab.text("#shown-prompt") == PROMPT


def test_a_job_that_ends_while_the_page_is_away_is_there_afterwards(tab: Tab, device: FakeDevice) -> None:
    gate = Gate(device, "guided_step", after=3)
    tab.write(PROMPT)
    tab.page.click("#generate")
    assert gate.reached.wait(60)
    tab.wait_until("() => sessionStorage.selected")  # the page knows its number
    tab.page.goto("about:blank")
    gate.open()
    tab.server.wait_for(lambda: not tab.server.service.board.active(), "the end")
    tab.open()
    tab.page.wait_for_selector("#download:visible")
    assert tab.page.locator("#tiles li").count() == 1


def test_the_form_survives_a_reload(tab: Tab) -> None:
    tab.write(PROMPT)
    tab.page.click("#more summary")
    tab.page.fill("#seed", "77")
    tab.page.locator("#quick button").nth(1).click()
    shown = tab.text("#time-shown")
    tab.reload()
    assert (tab.page.input_value("#prompt"), tab.page.input_value("#seed"), tab.text("#time-shown")) == (PROMPT, "77", shown)


def test_the_keyboard_alone_is_enough(tab: Tab) -> None:
    tab.page.focus("#prompt")
    tab.page.keyboard.type("a boat")
    tab.page.keyboard.press("Control+Enter")
    tab.page.wait_for_selector("#download:visible")
    assert tab.text("#shown-prompt") == "a boat"
    tab.page.focus("#tiles button")
    tab.page.keyboard.press("Enter")
    tab.wait_until("() => document.querySelector('#tiles button').getAttribute('aria-pressed') === 'true'")


def test_a_server_that_goes_away_is_named(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.may_lose_server = True
    tab.server.stop()
    tab.wait_for_text("#state", "does not answer")


# The gallery


def test_the_gallery_is_kept_deleted_and_brought_back(tab: Tab) -> None:
    generate(tab)
    generate(tab, "two boats")
    tab.reload()
    tab.wait_until("() => document.querySelectorAll('#tiles li').length === 2")
    tab.page.locator("#tiles button").nth(1).click()
    tab.wait_for_text("#shown-prompt", "red house")
    tab.page.click("#delete")
    tab.wait_until("() => document.querySelectorAll('#tiles li').length === 1")
    tab.page.click("#notice-act")
    tab.wait_until("() => document.querySelectorAll('#tiles li').length === 2")
    tab.page.click("#delete")
    tab.wait_until("() => document.querySelectorAll('#tiles li').length === 1")
    tab.reload()
    tab.wait_until("() => document.querySelectorAll('#tiles li').length > 0")
    assert tab.page.locator("#tiles img").get_attribute("alt") == "two boats"
    tab.page.once("dialog", lambda dialog: dialog.accept())
    tab.page.click("#gallery-clear")
    tab.page.wait_for_selector("#gallery", state="hidden")


def test_the_download_is_the_file_with_its_settings(tab: Tab) -> None:
    generate(tab)
    with tab.page.expect_download() as found:
        tab.page.click("#download")
    settings = read_settings(Path(found.value.path()))
    assert (settings["prompt"], settings["candidate"]) == (PROMPT, "base@8")
    assert found.value.suggested_filename == f"base@8-{settings['seed']}.png"


# Files that are dropped


def make_png(texts: Any = None) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "teal").save(buffer, "PNG", pnginfo=texts)
    return buffer.getvalue()


def test_the_settings_of_a_dropped_png_are_used(tab: Tab) -> None:
    generate(tab)
    with tab.page.expect_download() as found:
        tab.page.click("#download")
    data = Path(found.value.path()).read_bytes()
    settings = read_settings(data)
    tab.write("something else")
    tab.drop("#stage", data, "image.png", "image/png")
    tab.wait_for_text("#notice-text", "settings are in the form")
    assert tab.page.input_value("#prompt") == PROMPT
    assert tab.page.input_value("#seed") == str(settings["seed"])
    tab.wait_for_text("#choice-why", "Your choice")
    tab.page.click("#generate")
    tab.wait_until("() => document.querySelectorAll('#tiles li:not(.waiting)').length === 2")
    body = tab.bodies("/v1/jobs")[-1]
    assert (body["prompt"], body["seed"], body["candidate"]) == (PROMPT, settings["seed"], settings["candidate"])


def test_another_image_is_where_the_next_one_starts(browser: Any, serve: Serve, bundle: Bundle) -> None:
    device = open_fake_runtime(bundle, image_encoders=["tiny/vae/encode"])
    tab = Tab(browser, serve(device.runtime)).open()
    tab.write(PROMPT)
    tab.drop("body", make_png(), "photo.png", "image/png")
    tab.page.wait_for_selector("#start-image:visible")
    tab.wait_until("() => document.getElementById('choice').getAttribute('aria-busy') === 'false'")
    slide(tab, "strength", 60)
    tab.page.click("#generate")
    tab.page.wait_for_selector("#download:visible")
    body = tab.bodies("/v1/jobs")[-1]
    assert body["strength"] == 0.6
    assert body["init_image"].startswith("data:image/png;base64,")
    assert len(tab.bodies("/v1/route")[-1]["init_image"]) < len(body["init_image"])
    tab.page.click("#start-remove")
    tab.page.wait_for_selector("#start", state="hidden")
    tab.context.close()
    tab.server.wait_for(lambda: not tab.server.server.server_state.tasks, "the end of all requests")
    assert (tab.complaints, tab.refused) == ([], [])
    device.runtime.close()


def test_a_start_image_that_the_server_has_no_engines_for_is_refused_with_the_reason(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.drop("body", make_png(), "photo.png", "image/png")
    tab.wait_for_text("#notice-text", "initial image|init")
    assert tab.page.is_hidden("#start")
    tab.wait_for_text("#choice-name", "base@8")
    assert tab.refused == [400]


def test_a_file_that_is_no_image_is_refused(tab: Tab) -> None:
    tab.drop("body", b"no image", "odd.png", "image/png")
    tab.wait_for_text("#notice-text", "odd.png cannot be read as an image")
    tab.drop("body", b"text", "text.txt", "text/plain")
    tab.wait_for_text("#notice-text", "Drop a PNG, JPEG or WebP")


def test_texts_of_pngs_in_every_form(tab: Tab) -> None:
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_text("plain", "größe")
    texts.add_text("packed", "x" * 500, zip=True)
    texts.add_itxt("unicode", "日本", zip=False)
    texts.add_itxt("both", "日本" * 100, zip=True)
    read = "async (data) => (await import('/picture.js')).readTexts(new Uint8Array(data))"
    found = {"plain": "größe", "packed": "x" * 500, "unicode": "日本", "both": "日本" * 100}
    assert tab.page.evaluate(read, list(make_png(texts))) == found
    assert tab.page.evaluate(read, list(make_png(texts)[:60])) == {"plain": "größe"}
    assert tab.page.evaluate(read, list(b"GIF89a")) == {}


def test_settings_in_the_form_of_the_web_ui(tab: Tab) -> None:
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    pairs = "Steps: 20, Sampler: Euler a, Seed: 41, Size: 512x640, Model: some"
    texts.add_text("parameters", f"a fox\nin snow\nNegative prompt: trees\n{pairs}")
    read = "async (data) => (await import('/picture.js')).readSettings(new Blob([new Uint8Array(data)]))"
    found = tab.page.evaluate(read, list(make_png(texts)))
    expected = {"prompt": "a fox\nin snow", "negative_prompt": "trees", "seed": 41, "candidate": "some", "width": 512, "height": 640}
    assert {name: found[name] for name in expected} == expected


# Comparison


def compare(tab: Tab, prompt: str = PROMPT) -> None:
    tab.write(prompt)
    tab.page.click("#compare")
    tab.wait_until("() => document.querySelectorAll('#cards button:not(:disabled)').length === 4")
    tab.page.wait_for_selector("#tie:enabled")


def test_a_click_on_the_better_image_becomes_votes(tab: Tab, tmp_path: Path) -> None:
    prompt = 'a house, "old", by a lake; 日本'
    compare(tab, prompt)
    assert tab.page.locator("#cards .name").all_inner_texts() == ["A", "B", "C", "D"]
    bodies = tab.bodies("/v1/jobs")
    assert {body["candidate"] for body in bodies} == {"turbo@1", "turbo@2", "base@4", "base@8"}
    assert len({body["seed"] for body in bodies}) == 1
    assert all("max_ms" not in body for body in bodies)
    tab.page.locator('#cards button[data-candidate="base@4"]').click()
    tab.wait_for_text("#votes-count", "3 votes on 1 prompt")
    tab.page.locator('#cards button[data-candidate="turbo@2"]').click()
    tab.page.wait_for_selector('#cards button[data-candidate="turbo@2"][aria-pressed="true"]')
    assert sorted(tab.page.locator("#cards .name").all_inner_texts()) == ["base@4", "base@8", "turbo@1", "turbo@2"]
    tab.wait_until("() => document.querySelectorAll('#tiles li').length === 2")
    with tab.page.expect_download() as found:
        tab.page.click("#votes-download")
    path = tmp_path / found.value.suggested_filename
    found.value.save_as(path)
    table = VoteTable.open(path)
    assert len(table) == 3
    assert table.prompts == (prompt,)
    names = table.candidates
    winners = [names[a] if result == 1 else names[b] for a, b, result in zip(table.first, table.second, table.result, strict=True)]
    assert winners == ["turbo@2"] * 3


def test_about_the_same_is_a_tie_of_every_pair(tab: Tab) -> None:
    compare(tab)
    tab.page.click("#tie")
    tab.wait_for_text("#votes-count", "6 votes on 1 prompt")
    with tab.page.expect_download() as found:
        tab.page.click("#votes-download")
    rows = list(csv.DictReader(Path(found.value.path()).read_text().splitlines()))
    assert [row["winner"] for row in rows] == ["tie"] * 6
    tab.page.once("dialog", lambda dialog: dialog.accept())
    tab.page.click("#votes-clear")
    tab.page.wait_for_selector("#votes", state="hidden")


def test_a_comparison_survives_a_reload_and_leaves_the_gallery_alone(tab: Tab) -> None:
    compare(tab)
    order = tab.page.locator("#cards button").evaluate_all("(buttons) => buttons.map((button) => button.dataset.candidate)")
    tab.reload()
    tab.wait_until("() => document.querySelectorAll('#cards button:not(:disabled)').length === 4")
    assert tab.page.locator("#cards button").evaluate_all("(buttons) => buttons.map((button) => button.dataset.candidate)") == order
    assert tab.page.locator("#tiles li").count() == 0
    tab.page.click("#comparison-close")
    assert tab.page.is_visible("#stage")
    assert tab.page.is_hidden("#gallery")


def test_a_comparison_can_be_cancelled(tab: Tab, device: FakeDevice) -> None:
    gate = Gate(device, "step")
    tab.write(PROMPT)
    tab.page.click("#compare")
    assert gate.reached.wait(60)
    tab.server.wait_for(lambda: len(tab.server.service.board.active()) == 4, "all of them")
    tab.page.click("#comparison-cancel")
    gate.open()
    tab.server.wait_for(lambda: not tab.server.service.board.active(), "the end")
    tab.page.wait_for_selector("#comparison-cancel", state="hidden")


# Everybody


def check_with_axe(tab: Tab) -> None:
    options = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
    found = AXE.Axe().run(tab.page, options=options).response["violations"]
    assert [(each["id"], each["nodes"][0]["target"]) for each in found if each["impact"] in ("serious", "critical", "moderate")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [None, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing(open_tab: OpenTab, device: FakeDevice, scheme: str, size: Any) -> None:
    tab = open_tab(color_scheme=scheme, bypass_csp=True, **({"viewport": size} if size else {}))
    check_with_axe(tab)
    gate = Gate(device, "guided_step", after=2)
    tab.write(PROMPT)
    tab.page.click("#generate")
    tab.page.wait_for_selector("#preview:visible")
    check_with_axe(tab)
    gate.open()
    tab.page.wait_for_selector("#download:visible")
    tab.page.click("#more summary")
    tab.page.click("#settings summary")
    check_with_axe(tab)
    compare(tab)
    check_with_axe(tab)
    tab.page.locator("#cards button").first.click()
    tab.page.wait_for_selector("#votes:visible")
    check_with_axe(tab)


def test_a_phone_scrolls_in_one_direction_and_targets_are_large(open_tab: OpenTab) -> None:
    tab = open_tab(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)
    generate(tab)
    tab.page.click("#more summary")
    tab.page.evaluate("() => { document.getElementById('route').open = true; }")
    assert tab.page.evaluate("() => document.documentElement.scrollWidth") <= 320
    small = tab.page.locator("button, a, input:not(.hidden), select, textarea, summary").evaluate_all(
        """(all) => all.filter((each) => each.checkVisibility()).map((each) => [each.id || each.textContent, each.getBoundingClientRect()])
          .filter(([, box]) => box.width < 24 || box.height < 24).map(([name]) => name)"""
    )
    assert small == []
    compare(tab)
    assert tab.page.evaluate("() => document.documentElement.scrollWidth") <= 320


def test_there_is_one_live_region_and_refusals_are_spoken(open_tab: OpenTab) -> None:
    tab = open_tab()
    assert tab.page.locator('[role="status"], [role="alert"], [aria-live]').count() == 1
    spoken = tab.spoken()
    tab.write(PROMPT)
    slide(tab, "time", 0)
    assert spoken() == []
    tab.page.click("#generate")
    tab.wait_for_text("#notice-text", "[Nn]othing fits")
    assert [re.match("Nothing fits", text) is not None for text in spoken()] == [True]
    assert tab.refused == [422]


def test_reduced_motion_moves_nothing(open_tab: OpenTab) -> None:
    tab = open_tab(reduced_motion="reduce")
    moving = tab.page.evaluate(
        "() => [...document.querySelectorAll('*')].filter((each) => parseFloat(getComputedStyle(each).transitionDuration) > 0).length"
    )
    assert moving == 0
    generate(tab)
