"""The calls of a candidate: every engine run that it needs for a request, in order.

This is the only list of the engines that a candidate runs. Names, costs and memory are derived from it, and so is which engines are built,
warmed up and raced; `generation.Generation.units` makes the same calls in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costroute_rt.call import Call, Stage
from costroute_rt.candidate import Candidate
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import GUIDANCE_DEFAULTS, IMAGE_SIZE, LOOP_INPUTS, LOOP_OPTIONS, ROUTER_GRAPHS
from costroute_rt.engines.bundle.name import EngineName
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.error import EngineError, Reason


def read_pool(bundle: Bundle) -> tuple[Candidate, ...]:
    """The bundle's candidates, in the bundle's order."""
    return tuple(_candidate(bundle, row) for row in bundle.pool)


def candidate_calls(
    bundle: Bundle, candidate: Candidate, *, rows: int | None = None, steps: int | None = None, has_image: bool = False
) -> tuple[Call, ...]:
    """The calls for one image with the bundle's usual engines.

    rows: denoiser calls of the run; None means one per step. steps: of the run; None means the candidate's.
    has_image: whether it begins with an image.
    """
    component = bundle.components[candidate.denoiser]
    guidance = candidate.guidance(rows, steps)
    uses = {"step": guidance.count(1.0)} if takes_plain_steps(bundle, candidate) else {"step": 0}
    uses[component.step_graph(candidate.guidance_scale)] = len(guidance) - uses["step"]
    encoder = image_encoder(bundle, candidate.decoder) if has_image else None
    calls = [] if encoder is None else [Call(_name(bundle, encoder, "encode"), Stage.ENCODE)]
    calls += [encoder_call(bundle, name) for name in _encoders(bundle, candidate)]
    if "condition" in component.graphs:
        passes = ([2] if candidate.is_guided else []) + ([1] if uses["step"] else [])
        calls += [Call(_name(bundle, candidate.denoiser, "condition"), Stage.TEXT, rows=each) for each in passes]
    return (
        *calls,
        *(Call(_name(bundle, candidate.denoiser, use), Stage.DENOISE, times=times) for use, times in uses.items() if times),
        Call(_name(bundle, candidate.decoder, "decode"), Stage.DECODE),
    )


def takes_plain_steps(bundle: Bundle, candidate: Candidate) -> bool:
    """Whether a guided candidate runs `step` in rows without guidance: it must have that graph, and a condition graph for one text."""
    graphs = bundle.components[candidate.denoiser].graphs
    if not candidate.is_guided or "step" not in graphs:
        return False
    condition = bundle.graphs[graphs["condition"]].inputs if "condition" in graphs else {}
    return all(isinstance(spec.shape[0], str) for name, spec in condition.items() if name != IMAGE_SIZE)


def router_calls(bundle: Bundle) -> tuple[Call, ...]:
    """The calls that the bundle's router makes for a prompt besides the text encoder's."""
    if bundle.router is None:
        return ()
    roles = {name: component.role for name, component in bundle.components.items() if component.role in ROUTER_GRAPHS}
    return tuple(Call(_name(bundle, name, ROUTER_GRAPHS[role]), Stage.ROUTE) for name, role in roles.items())


def image_encoder(bundle: Bundle, decoder: str) -> str | None:
    """The component that turns pixels into latents for this decoder: the decoder itself, or else the first that can; None if none can."""
    decoders = [bundle.components[decoder], *(each for each in bundle.components.values() if each.role == "decoder")]
    usable = (each.name for each in decoders if "encode" in each.graphs and "pixels" in bundle.graphs[each.graphs["encode"]].inputs)
    return next(usable, None)


def image_encoder_names(bundle: Bundle) -> list[str]:
    """The engines that encode initial images, which no candidate needs without one; `engine_names` leaves them out."""
    encoders = [image_encoder(bundle, candidate.decoder) for candidate in read_pool(bundle)]
    return list(dict.fromkeys(_name(bundle, encoder, "encode") for encoder in encoders if encoder is not None))


def missing_image_encoder(name: str) -> EngineError:
    """The error for an initial image without the engine that encodes it."""
    return EngineError("no engine encodes initial images", reason=Reason.IMAGES_MISSING, engine=name)


def encoder_call(bundle: Bundle, encoder: str) -> Call:
    """One run of a text encoder."""
    return Call(_name(bundle, encoder, "encode"), Stage.TEXT)


def states_calls(bundle: Bundle) -> tuple[Call, ...]:
    """The run of the text encoder whose states the bundle's router reads, if the manifest names it.

    It comes on top of a candidate's calls only if the candidate does not use that text encoder.
    """
    stated = (bundle.router or {}).get("states")
    return tuple(encoder_call(bundle, encoder) for encoder, outputs in _encoder_outputs(bundle).items() if stated in outputs)


def engine_names(bundle: Bundle) -> list[str]:
    """Every engine that the bundle's pool and router need, once, ordered by stage; the router's come last."""
    calls = [call for candidate in read_pool(bundle) for call in candidate_calls(bundle, candidate)]
    ordered = sorted(calls, key=lambda call: call.stage is Stage.DECODE)
    return list(dict.fromkeys(call.engine for call in (*ordered, *states_calls(bundle), *router_calls(bundle))))


def pool_names(pool: Pool) -> dict[str, list[str]]:
    """`engine_names` of each bundle of a pool, and the engines of the pool's own router, by the first part of their names."""
    found = {name: engine_names(bundle) for name, bundle in pool.bundles.items()}
    if pool.router is not None and pool.router.name not in found and (calls := router_calls(pool.router)):
        found[pool.router.name] = [call.engine for call in calls]
    return found


def candidate_names(bundle: Bundle) -> dict[str, list[str]]:
    """The engines that each candidate needs, by candidate, in the order of their calls, the router's first."""
    calls = {each.name: (*states_calls(bundle), *router_calls(bundle), *candidate_calls(bundle, each)) for each in read_pool(bundle)}
    return {name: list(dict.fromkeys(call.engine for call in each)) for name, each in calls.items()}


def pool_candidate_names(pool: Pool) -> dict[str, list[str]]:
    """`candidate_names` of a pool; the engines of its router, and those that read the prompt for it, are needed by every candidate."""
    states = states_calls(pool.bundles[pool.states_bundle]) if pool.router is not None and pool.states_bundle is not None else ()
    shared = [call.engine for call in (*states, *(router_calls(pool.router) if pool.router is not None else ()))]
    own = {name: names for bundle in pool.bundles.values() for name, names in candidate_names(bundle).items()}
    return {name: list(dict.fromkeys([*shared, *own[name]])) for name in pool.names() if name in own}


def image_calls(bundle: Bundle) -> dict[str, list[tuple[str, int]]]:
    """Engines and number of runs for one image, by candidate; of candidates with the same engines, the one with the fewest steps."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for candidate in sorted(read_pool(bundle), key=lambda each: each.num_inference_steps):
        calls = (*router_calls(bundle), *candidate_calls(bundle, candidate))
        found.setdefault(tuple(call.engine for call in calls), {candidate.name: [(call.engine, call.times) for call in calls]})
    return {name: calls for each in found.values() for name, calls in each.items()}


def sources_of(bundle: Bundle, candidate: Candidate) -> tuple[str, ...]:
    """Names of the conditioning tensors that the candidate's graphs take (see `engines.bundle.manifest`)."""
    component = bundle.components[candidate.denoiser]
    plain = ["step"] if takes_plain_steps(bundle, candidate) else []
    uses = [use for use in ("condition", component.step_graph(candidate.guidance_scale), *plain) if use in component.graphs]
    graphs = {use: bundle.graphs[component.graphs[use]] for use in uses}
    made = graphs["condition"].outputs if "condition" in graphs else {}
    taken = [name for graph in graphs.values() for name in graph.inputs]
    return tuple(dict.fromkeys(name for name in taken if name not in (*LOOP_INPUTS, *LOOP_OPTIONS, *made)))


def _encoders(bundle: Bundle, candidate: Candidate) -> list[str]:
    """Names of the text encoders whose outputs the candidate's graphs take, in the bundle's order."""
    taken = sources_of(bundle, candidate)
    return [encoder for encoder, outputs in _encoder_outputs(bundle).items() if not outputs.isdisjoint(taken)]


def _encoder_outputs(bundle: Bundle) -> dict[str, set[str]]:
    """The outputs of each text encoder, as denoisers and routers name them, in the bundle's order; any of these names may have dots."""
    encoders = [each for each in bundle.components.values() if each.role == "text_encoder"]
    return {each.name: {f"{each.name}.{output}" for output in bundle.graphs[each.graphs["encode"]].outputs} for each in encoders}


def _candidate(bundle: Bundle, row: Mapping[str, Any]) -> Candidate:
    step = bundle.components[row["denoiser"]].step_graph(row["guidance_scale"])
    names = ["name", "denoiser", "scheduler", "num_inference_steps", "guidance_scale", "decoder"]
    names += [name for name in GUIDANCE_DEFAULTS if name in row]
    return Candidate(family=bundle.name, is_guided=step == "guided_step", **{name: row[name] for name in names})


def _name(bundle: Bundle, component: str, graph: str) -> str:
    return str(EngineName(bundle.name, component, graph))
