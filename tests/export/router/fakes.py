"""A runtime without engines, and a scorer without judgement: their output depends on prompt, candidate and seed only.

python -m tests.export.router.fakes LABELS PROMPTS SECONDS      labels with a pause at each image, until somebody kills it
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from costroute_rt.error import PromptError
from costroute_rt.export.router.labelling import Report, Request, label_prompts
from costroute_rt.export.router.prompts import PromptRow

CANDIDATES = ("fast@1", "slow@8")


class FakeRuntime:
    """Images that encode their prompt, candidate and seed."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.calls: list[tuple[str, str, int]] = []
        self._before = before

    def generate(self, prompt: str, *, candidate: str, seed: int, plain_prompt: bool = False) -> Any:
        self._before()
        if "impossible" in prompt:
            raise PromptError("the prompt is impossible")
        self.calls.append((prompt, candidate, seed))
        bits = hashlib.sha512(f"{prompt} {candidate} {seed}".encode()).digest()
        total_ms = 100.0 if candidate == CANDIDATES[0] else 800.0
        timings = SimpleNamespace(total_ms=total_ms + bits[0] / 10, swap_ms=5.0)
        return SimpleNamespace(pixels=np.frombuffer(bits[:48], np.uint8).reshape(1, 4, 4, 3), timings=timings, truncated="long" in prompt)


class FakeScorer:
    """The mean of the pixels."""

    def __init__(self, name: str = "mean", score: Callable[[Any, PromptRow], float] | None = None, lacks: str | None = None) -> None:
        self.name, self._score, self._lacks = name, score, lacks
        self.is_closed = False

    def check(self, prompt: PromptRow) -> str | None:
        return self._lacks

    def score(self, pixels: Any, prompt: PromptRow) -> float:
        return float(pixels.mean()) / 255 if self._score is None else self._score(pixels, prompt)

    def close(self) -> None:
        self.is_closed = True


def make_prompts(count: int) -> list[PromptRow]:
    """Prompts with commas, quotes and line breaks in them."""
    texts = ('a "red" house, {}', "a lake\nat night {}", "größe {}")
    return [PromptRow(prompt_id=f"p{n}", prompt=texts[n % 3].format(n), extra={"category": "ab"[n % 2]}) for n in range(count)]


def make_request(**changes: Any) -> Request:
    """Both candidates, two seeds, one scorer."""
    standard: dict[str, Any] = {"candidates": CANDIDATES, "seeds": (0, 1), "scorers": (FakeScorer(),)}
    standard |= {"fingerprints": {name: f"mark of {name}" for name in (*CANDIDATES, "new@4")}}
    return Request(**{**standard, **changes})


def label(path: Path, prompts: Sequence[PromptRow] | None, runtime: FakeRuntime | None = None, **changes: Any) -> Report:
    """`label_prompts` with fakes."""
    return label_prompts(runtime or FakeRuntime(), prompts, path, make_request(**changes))


if __name__ == "__main__":
    pause_s = float(sys.argv[3])
    print("ready", flush=True)  # noqa: T201
    label(Path(sys.argv[1]), make_prompts(int(sys.argv[2])), FakeRuntime(lambda: time.sleep(pause_s)))
