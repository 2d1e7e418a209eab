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
    encode, step, decode = parts.encode, parts.step(candidate), parts.decode(candidate)
    asks_negative = candidate.is_guided and request.negative_prompt not in parts.negatives
    return Work(
        encode=encode,
        text_calls=2 if asks_negative else 1,
        step=step,
        rows=len(parts.tables.table(candidate)),
        decode=decode,
        batches=parts.costs.batches(step, request.count),
        loads=tuple(name for name in (encode, step, decode) if parts.engines.find(name) is None),
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
            memory_bytes=sum(_memory_bytes(parts, name) for name in (parts.encode, parts.step(candidate), parts.decode(candidate))),
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


def _memory_bytes(parts: Parts, name: str) -> int:
    engine = parts.engines.find(name)
    if engine is not None:
        return int(engine.resident_bytes)
    weights = parts.bundle.components[name.split("/")[0]].weights
    return _FLOAT32_PER_STORED * parts.bundle.files[weights].bytes if weights else 0
