"""Warm-up: loads every engine and runs it once before the first request."""

from __future__ import annotations

from functools import partial

from costroute_rt.call import Call
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.bundle.name import EngineName, Size
from costroute_rt.engines.bundle.size import axis_lengths
from costroute_rt.family.conditioning import tokenize
from costroute_rt.family.engine_set import run_on_host
from costroute_rt.family.family import Family
from costroute_rt.family.resources import Resources


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


def _run_once(resources: Resources, family: Family, call: Call, size: Size) -> None:
    bundle, name = family.bundle, EngineName.parse(call.engine)
    lengths = {**axis_lengths(bundle, size), "rows": call.rows}
    run_on_host(resources.engines.get(call.engine), example_feeds(bundle, bundle.graph_path(name.component, name.graph), lengths))
