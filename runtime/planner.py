"""From a request to a route: the work each candidate would be, its cost, and the choice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from costroute_rt.budget import Work
from costroute_rt.candidate import Candidate
from costroute_rt.parts import Parts
from costroute_rt.request import Request
from costroute_rt.route import Option, Route, choose

_FLOAT32_PER_STORED = 2
"""Weights are stored as float16 and run as float32."""


def plan_work(parts: Parts, request: Request, candidate: Candidate) -> Work:
    """The engine calls this request would be with this candidate, as things are now."""
    step = parts.step(candidate)
    asks_negative = candidate.is_guided and request.negative_prompt not in parts.negatives
    return Work(
        encode=parts.encode,
        text_calls=2 if asks_negative else 1,
        condition=parts.condition(candidate),
        passes=2 if candidate.is_guided else 1,
        step=step,
        rows=len(parts.tables.table(candidate)),
        decode=parts.decode(candidate),
        batches=parts.costs.batches(step, request.count),
        loads=tuple(name for name in parts.needed(candidate) if parts.engines.find(name) is None),
        area=request.height * request.width / (parts.bundle.image.height * parts.bundle.image.width),
    )


def route_request(parts: Parts, request: Request, works: dict[str, Work], states: npt.NDArray[np.float32] | None) -> Route:
    """The decision; a named candidate is the only one weighed.

    works: the candidates' work by name. states: as `QualityEstimator.estimate` takes them. Raises BudgetError.
    """
    means, errors = parts.quality.estimate(request.prompt, states)
    options = [
        Option(
            candidate=candidate,
            quality=float(mean),
            quality_error=float(error),
            cost=parts.costs.predict(works[candidate.name]),
            memory_bytes=_memory_bytes(parts, candidate),
            resident=not works[candidate.name].loads,
        )
        for candidate, mean, error in zip(parts.pool, means, errors, strict=True)
        if candidate.name in works
    ]
    return choose(
        request.prompt,
        options,
        max_ms=request.max_ms,
        lam=request.lam,
        tolerance=request.tolerance,
        or_fastest=request.or_fastest,
    )


def plan_works(parts: Parts, request: Request) -> dict[str, Work]:
    """The work of each candidate the request allows, by name; raises ConfigError for an unknown candidate."""
    candidates = parts.pool if request.candidate is None else (parts.pool.find(request.candidate),)
    return {candidate.name: plan_work(parts, request, candidate) for candidate in candidates}


def _memory_bytes(parts: Parts, candidate: Candidate) -> int:
    """Of its resident engines, and the weights of the components that have others, as these share them out among their engines."""
    engines = {name: parts.engines.find(name) for name in parts.needed(candidate)}
    absent = {name.split("/")[0] for name, engine in engines.items() if engine is None}
    weights = [parts.bundle.components[name].weights for name in absent]
    stored = sum(parts.bundle.files[file].bytes for file in weights if file)
    return _FLOAT32_PER_STORED * stored + sum(int(engine.resident_bytes) for engine in engines.values() if engine is not None)
