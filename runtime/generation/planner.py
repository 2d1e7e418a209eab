"""From a request to a route: the work each candidate would be, its cost, and the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from costroute_rt.candidate import Candidate
from costroute_rt.cost.allocation import Allocation, allocate
from costroute_rt.cost.cost_model import Work
from costroute_rt.error import BudgetError
from costroute_rt.family.conditioning import as_text_states, encode_text
from costroute_rt.family.parts import Parts
from costroute_rt.request import Request
from costroute_rt.route import Option, Route, choose, explain
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.routing.quality import Judgement

_FLOAT32_PER_STORED = 2
"""Weights are stored as float16 and run as float32."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A prompt and what is expected of each candidate for it."""

    prompt: str
    judgement: Judgement


def plan_work(parts: Parts, request: Request, candidate: Candidate) -> Work:
    """The engine calls this request would be with this candidate, as things are now."""
    size = request.height, request.width
    encode, condition = parts.encode, parts.condition(candidate)
    step, decode = (parts.at(name, size) for name in (parts.step(candidate), parts.decode(candidate)))
    is_own = size in parts.profiles.sizes
    needed = (*parts.router_engines, encode, condition, step, decode)
    asks_negative = candidate.is_guided and request.negative_prompt not in parts.negatives
    return Work(
        encode=encode,
        text_calls=2 if asks_negative else 1,
        condition=condition,
        passes=2 if candidate.is_guided else 1,
        step=step,
        rows=len(parts.tables.table(candidate)),
        decode=decode,
        batches=parts.costs.batches(step, request.count),
        loads=tuple(name for name in needed if name is not None and parts.engines.find(name) is None),
        area=1.0 if is_own else size[0] * size[1] / (parts.bundle.image.height * parts.bundle.image.width),
    )


def route_request(parts: Parts, request: Request, works: Mapping[str, Work], states: TextStates | None) -> Route:
    """The decision; a named candidate is the only one weighed.

    works: the candidates' work by name. states: as `QualityEstimator.judge` takes them. Raises BudgetError.
    """
    judgement = parts.quality.judge(request.prompt, states)
    route = choose(
        request.prompt,
        _judge_options(parts, _weigh(parts, works), judgement),
        max_ms=request.max_ms,
        lam=request.lam,
        tolerance=request.tolerance,
        or_fastest=request.or_fastest,
        judgement=judgement,
    )
    return route if parts.upgrade is None else replace(route, building=parts.upgrade.status())


def route_batch(parts: Parts, prompts: Sequence[Judged], works: Mapping[str, Work], total_ms: float, *, or_fastest: bool) -> list[Route]:
    """A decision for each prompt, all together within `total_ms` by their middle estimates; nothing but the prompt differs between them.

    or_fastest: where even the cheapest candidates take longer, take these instead of raising BudgetError.
    """
    options = _weigh(parts, works)
    columns = [index for index, candidate in enumerate(parts.pool) if candidate.name in works]
    quality = np.array([each.judgement.mean for each in prompts])[:, columns]
    cost_ms = np.array([option.ms for option in options])
    try:
        allocation = allocate(quality, cost_ms, total_ms)
        reason = _reason(allocation, total_ms, len(prompts))
    except BudgetError:
        if not or_fastest:
            raise
        cheapest = int(cost_ms.argmin())
        allocation = Allocation(np.full(len(prompts), cheapest), 0.0, len(prompts) * float(cost_ms[cheapest]))
        reason = "the fastest, as nothing fits the budget"
    routes, building = [], parts.upgrade.status() if parts.upgrade is not None else None
    for each, choice in zip(prompts, allocation.choice.tolist(), strict=True):
        judged = _judge_options(parts, options, each.judgement)
        chosen = judged[choice]
        routes.append(
            Route(
                prompt=each.prompt,
                max_ms=None,
                chosen=chosen.candidate,
                reason=reason,
                options=explain(judged, chosen, reason),
                lam=allocation.multiplier,
                judgement=each.judgement,
                building=building,
            )
        )
    return routes


def encode_prompt(parts: Parts, prompt: str) -> TextStates:
    """The prompt's states, by one call of the text encoder. Raises PromptError where it is far too long."""
    tokens = parts.tokenizer.encode(prompt)
    return as_text_states(encode_text(parts.engines.get(parts.encode), tokens), tokens)


def plan_works(parts: Parts, request: Request) -> dict[str, Work]:
    """The work of each candidate the request allows, by name; raises ConfigError for an unknown candidate."""
    candidates = parts.pool if request.candidate is None else (parts.pool.find(request.candidate),)
    return {candidate.name: plan_work(parts, request, candidate) for candidate in candidates}


def _weigh(parts: Parts, works: Mapping[str, Work]) -> list[Option]:
    """The candidates that have work, in the pool's order, with their costs; their quality is still to be filled in."""
    return [
        Option(
            candidate=candidate,
            quality=0.0,
            quality_error=0.0,
            cost=parts.costs.predict(works[candidate.name]),
            memory_bytes=_memory_bytes(parts, works[candidate.name]),
            resident=not works[candidate.name].loads,
            building_ms=_foresee_ms(parts, works[candidate.name]),
        )
        for candidate in parts.pool
        if candidate.name in works
    ]


def _foresee_ms(parts: Parts, work: Work) -> float | None:
    """What the work will cost with the engines that are on their way; None where that is unknown, or none are."""
    coming = parts.upgrade.foresee(work.engines) if parts.upgrade is not None else None
    return None if coming is None else parts.costs.predict(replace(work, loads=()), coming).total_ms


def _judge_options(parts: Parts, options: Sequence[Option], judgement: Judgement) -> list[Option]:
    """The options with what is expected of them."""
    expected = {candidate.name: index for index, candidate in enumerate(parts.pool)}
    judged = []
    for option in options:
        index = expected[option.candidate.name]
        judged.append(replace(option, quality=float(judgement.mean[index]), quality_error=float(judgement.standard_error[index])))
    return judged


def _reason(allocation: Allocation, total_ms: float, prompts: int) -> str:
    if allocation.multiplier == 0:
        return f"best quality: {total_ms:.0f} ms are enough for the best of all {prompts}"
    return f"best use of {total_ms:.0f} ms for {prompts} prompts, where a millisecond is worth {allocation.multiplier:.3g} of quality"


def _memory_bytes(parts: Parts, work: Work) -> int:
    """Of its resident engines, and the weights of the components that have others, as these share them out among their engines."""
    engines = {name: parts.engines.find(name) for name in work.engines}
    absent = {name.split("/")[1] for name, engine in engines.items() if engine is None}
    weights = [parts.bundle.components[name].weights for name in absent]
    stored = sum(parts.bundle.files[file].bytes for file in weights if file)
    return _FLOAT32_PER_STORED * stored + sum(int(engine.resident_bytes) for engine in engines.values() if engine is not None)
