"""Label tables as text, for prompts whose length determines the best candidate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COLOURS, THINGS = ("red", "blue", "green", "white", "old", "grey"), ("house", "boat", "tree", "mountain", "bird", "lake", "sheep")
COST = (10, 20, 40, 80)


def write_labels(names: Sequence[str], *, first: int = 0, count: int = 80, seeds: int = 2, signal: float = 0.06, costs: bool = True) -> str:
    """A CSV; every other prompt is long and served best by the last candidate, the others by the first.

    With signal 0 there is noise only.
    """
    rng, rows = np.random.default_rng(first), ["prompt_id,prompt,category,candidate,seed,score,cost_ms"]
    for index in range(first, first + count):
        is_long = index % 2
        text = f"a {COLOURS[index % 6]} {THINGS[index % 7]} number {index}" + (" at night with snow and a moon" if is_long else "")
        for place, name in enumerate(names):
            for seed in range(seeds):
                score = 0.6 + (signal if is_long else -signal / 2) * place + 0.01 * rng.normal()
                cost = COST[place % 4] if costs else ""
                rows.append(f"p{index},{text},{'long' if is_long else 'short'},{name},{seed},{score:.5f},{cost}")
    return "\n".join(rows) + "\n"
