"""Engine runs on example inputs: the warm-up before the first request, and probes of the device's speed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from costroute_rt.call import Call
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.bundle.name import EngineName, Size
from costroute_rt.engines.bundle.size import axis_lengths
from costroute_rt.family.conditioning import tokenize
from costroute_rt.family.engine_set import run_on_host
from costroute_rt.family.family import Family
from costroute_rt.family.resources import Resources
from costroute_rt.request import Request


def warm_up(resources: Resources) -> None:
    """Load every engine of pool and router and run it once; cache the encoding of the empty negative prompt.

    A first run allocates memory and fills caches, and takes several times as long as later runs.
    """
    done: set[str] = set()
    for candidate in resources.pool:
        family = resources.family(candidate)
        size = family.sizes.first(family.bundle)
        for call in (*resources.routing_calls(), *family.calls(candidate, size)):
            if call.engine not in done:
                done.add(call.engine)
                _run_once(resources, family, call, size)
        if candidate.is_guided and not family.uses_zeros:
            plan = family.plan(candidate, size)
            tokens = tokenize(family.tokenizers, "", plan.tokenizers)
            for encoder, call in plan.encoders.items():
                encode = partial(family.encode, encoder, tokens, resources.engines.get(call.engine))
                resources.negatives.get((family.name, encoder, ""), encode)


def probe(resources: Resources, request: Request, plans: Iterable[Sequence[Call]]) -> None:
    """Measure an engine after a refusal, if it may rest on load that is over; the next request profits."""
    call = resources.costs.find_probe(plans, request.max_ms or 0.0)
    engine = None if call is None else resources.engines.find(call.engine)
    if call is None or engine is None:
        return
    family = resources.families[EngineName.parse(call.engine).family]
    feeds = _feeds(family, call, family.size(request))
    started_s = resources.clock()
    for _ in range(call.times):
        run_on_host(engine, feeds)
    resources.costs.record_probe(call, (resources.clock() - started_s) * 1000)


def _run_once(resources: Resources, family: Family, call: Call, size: Size) -> None:
    run_on_host(resources.engines.get(call.engine), _feeds(family, call, size))


def _feeds(family: Family, call: Call, size: Size) -> dict[str, Any]:
    bundle, name = family.bundle, EngineName.parse(call.engine)
    lengths = {**axis_lengths(bundle, size), "rows": call.rows}
    return example_feeds(bundle, bundle.graph_path(name.component, name.graph), lengths)
