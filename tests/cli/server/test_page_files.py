"""The files of the page, without a browser."""

from __future__ import annotations

import re
from importlib.resources import files

from costroute_rt.cli.server.page import PAGE
from tests.cli.server.conftest import Running

FOLDER = files("costroute_rt.cli.server") / "page"


def read(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def test_every_file_of_the_folder_is_served_and_no_other(server: Running) -> None:
    assert sorted(PAGE.values()) == sorted(each.name for each in FOLDER.iterdir())
    for path, name in PAGE.items():
        answer = server.get(path)
        assert (answer.status, answer.body) == (200, read(name).encode())
        assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_modules_import_what_is_there() -> None:
    modules = {name: read(name) for name in PAGE.values() if name.endswith(".js")}
    for name, text in modules.items():
        for names, source in re.findall(r'import \{([^}]*)\} from "\./([\w.]+)"', text):
            for each in filter(None, map(str.strip, names.split(","))):
                assert re.search(rf"export (const|class|function|async function) {each}\b", modules[source]), f"{name}: {each} of {source}"


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    page = read("index.html")
    assert re.findall(r"<script(?! type=\"module\" src=)|<style|\son\w+=|\sstyle=|javascript:", page) == []
    for name in PAGE.values():
        text = read(name).replace("http://www.w3.org/2000/svg", "")
        assert re.findall(r"https?://|@import|//cdn", text) == [], name
        assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text) == [], name


def test_scripts_find_their_elements() -> None:
    ids = set(re.findall(r'\sid="([\w-]+)"', read("index.html")))
    for name in PAGE.values():
        assert set(re.findall(r'byId\("([\w-]+)"\)', read(name))) <= ids, name
