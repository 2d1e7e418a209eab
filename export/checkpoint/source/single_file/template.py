"""What a single file lacks: settings that no shape tells, the scheduler and the tokenizers, as the published models have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "templates"
_CLIP, _OPEN_CLIP = _FOLDER / "tokenizer_clip", _FOLDER / "tokenizer_open_clip"
"""They differ in the token that fills a prompt up: the end token, and `!`."""
TOKENIZERS = {"sd1": {"tokenizer": _CLIP}, "sd2": {"tokenizer": _OPEN_CLIP}, "sdxl": {"tokenizer": _CLIP, "tokenizer_2": _OPEN_CLIP}}


def read_template(family: str) -> dict[str, Any]:
    """`title`, `pipeline`, `scheduler`, and the settings of each network without those that shapes tell."""
    template: dict[str, Any] = json.loads((_FOLDER / f"{family}.json").read_text(encoding="utf-8"))
    return template
