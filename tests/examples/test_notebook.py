"""The cells of the example notebook run in order; the model is a tiny one."""

from __future__ import annotations

import ast
import json
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from costroute_rt.runtime import Runtime

NOTEBOOK = Path(__file__).parents[2] / "examples/notebook/postcards.ipynb"


class View:
    """What `display` returns."""

    def __init__(self, shown: list[Any]) -> None:
        self._shown = shown

    def update(self, thing: Any) -> None:
        self._shown.append(thing)


def read_cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def run_cell(code: str, names: dict[str, Any]) -> Any:
    """Run a cell; returns the value of its last line, which a notebook shows."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if not isinstance(last, ast.Expr) else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_the_cells_run_in_order(tiny_bundle: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_runtime, shown = Runtime.open, list[Any]()

    def show(thing: Any, display_id: bool = False) -> View:
        shown.append(thing)
        return View(shown)

    monkeypatch.setattr(Runtime, "open", lambda **options: open_runtime(tiny_bundle, **options))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"display": show}
    values = [run_cell("".join(cell["source"]), names) for cell in read_cells()]
    assert values[1]._repr_png_().startswith(b"\x89PNG")
    assert values[3]._repr_html_().startswith("<p>")
    assert sum(isinstance(each, Image.Image) for each in shown) == 3 + names["event"].route.chosen.num_inference_steps
    assert values[-1][1] == 7


def test_the_images_in_the_file_are_small_and_name_no_place_of_its_maker() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 400_000
    assert "/home/" not in text
    assert "/root/" not in text
    outputs = [output.get("data", {}) for cell in read_cells() for output in cell["outputs"]]
    pictures = [Image.open(BytesIO(b64decode(data["image/png"]))) for data in outputs if "image/png" in data]
    assert [picture.width for picture in pictures] == [256, 128, 128, 128, 256]
    assert not [output for cell in read_cells() for output in cell["outputs"] if output["output_type"] == "error"]
