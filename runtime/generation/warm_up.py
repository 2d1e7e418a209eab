"""Engine runs on example inputs: the warm-up before the first request, and probes of the device's speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from costroute_rt.call import Call
from costroute_rt.engines.building.duration import work_size
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.building.progress import Stage, Step, Tracker
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.name import EngineName, Size
from costroute_rt.engines.bundle.size import axis_lengths
from costroute_rt.family.engine_set import run_on_host
from costroute_rt.family.family import request_size
from costroute_rt.family.resources import Resources
from costroute_rt.family.texts import chunk_key
from costroute_rt.request import Request

_FIRST_RUN = 3.0
"""Time of an engine's first run, relative to later ones."""


def warm_up(resources: Resources, tracker: Tracker) -> Iterator[bool]:
    """Load every engine of pool and router and run it once; cache the encoding of the empty negative prompt.

    Yields after each unit of work. A first run allocates memory and fills caches, and takes several times as long as later runs.
    """
    first_calls = _that_fit(resources, _first_calls(resources))
    _plan(resources, first_calls, tracker)
    for call, _, _ in first_calls:
        tracker.start(Stage.LOAD, call.engine)
        resources.engines.get(call.engine)  # in this thread: memory that ends up in the heaps of other threads is not given back
        yield True
    for call, bundle, size in first_calls:
        tracker.start(Stage.WARM_UP, call.engine)
        run_on_host(resources.engines.get(call.engine), _feeds(bundle, call, size))
        yield True
    loaded = {call.engine for call, _, _ in first_calls}
    for candidate in resources.runnable:
        family = resources.family(candidate)
        if candidate.is_guided and not family.uses_zeros:
            plan = family.plan(candidate, family.sizes.first(family.bundle))
            tokens = family.tokenize("", plan.tokenizers)
            for encoder, call in plan.encoders.items():
                if call.engine not in loaded:
                    continue
                encode = partial(family.encode, encoder, tokens, resources.engines.get(call.engine))
                key = call.engine, chunk_key(tokens[str(family.bundle.components[encoder].tokenizer)])
                resources.negatives.get(key, encode)
    tracker.check()


def _first_calls(resources: Resources) -> list[tuple[Call, Bundle, Size]]:
    """The first call of each engine, with its bundle and the image size of the candidate that makes it."""
    found: dict[str, tuple[Call, Bundle, Size]] = {}

    def note(call: Call, size: Size | None) -> None:
        bundle = resources.bundle(call.engine)
        found.setdefault(call.engine, (call, bundle, size or (bundle.image.height, bundle.image.width)))

    for call in resources.routing_calls():
        note(call, None)
    for candidate in resources.runnable:
        family = resources.family(candidate)
        size = family.sizes.first(family.bundle)
        strength = 1.0 if resources.init_images and family.begins_with_images(candidate) else None
        for call in family.calls(candidate, size, strength=strength):
            note(call, size)
    return list(found.values())


def _that_fit(resources: Resources, calls: list[tuple[Call, Bundle, Size]]) -> list[tuple[Call, Bundle, Size]]:
    """Those whose engines fit the limit of memory together, by preference; all without one."""
    limit = resources.engines.limit
    if limit is None:
        return calls
    fitting, names = [], resources.engines.resident()
    for each in calls:
        name = each[0].engine
        if name in names or limit.has_room(names, name):
            fitting.append(each)
            names.append(name)
    return fitting


def _plan(resources: Resources, calls: list[tuple[Call, Bundle, Size]], tracker: Tracker) -> None:
    """Tell the tracker what will be loaded and run, with the expected times where engines are measured."""
    if tracker.poll is None:
        return
    loads, runs = [], []
    for call, bundle, _ in calls:
        name, load_s, run_s = call.engine, None, None
        with suppress(KeyError):  # not measured
            load_s = 0.0 if resources.engines.find(name) else resources.costs.predict((), [name]).swap_ms / 1000
            run_s = _FIRST_RUN * resources.costs.expected_ms(call) / 1000
        sizes = {stage: work_size(bundle, name, stage) for stage in (Stage.LOAD, Stage.WARM_UP)}
        loads.append(Step(stage=Stage.LOAD, engine=name, expected_s=load_s, size=sizes[Stage.LOAD]))
        runs.append(Step(stage=Stage.WARM_UP, engine=name, expected_s=run_s, size=sizes[Stage.WARM_UP]))
    tracker.plan(Stage.LOAD, loads)
    tracker.plan(Stage.WARM_UP, runs)


def probe(resources: Resources, request: Request, plans: Iterable[Sequence[Call]]) -> None:
    """Measure an engine after a refusal, if it may rest on load that is over; the next request profits."""
    call = resources.costs.find_probe(plans, request.max_ms or 0.0)
    engine = None if call is None else resources.engines.find(call.engine)
    if call is None or engine is None:
        return
    bundle = resources.bundle(call.engine)
    feeds = _feeds(bundle, call, request_size(bundle.image, request))
    run_on_host(engine, feeds)  # the first run after a pause is slower than those that were profiled
    started_s = resources.clock()
    for _ in range(call.times):
        run_on_host(engine, feeds)
    resources.costs.record_probe(call, (resources.clock() - started_s) * 1000)


def _feeds(bundle: Bundle, call: Call, size: Size) -> dict[str, Any]:
    name = EngineName.parse(call.engine)
    lengths = {**axis_lengths(bundle, size), "rows": call.rows}
    return example_feeds(bundle, bundle.graph_path(name.component, name.graph), lengths)
