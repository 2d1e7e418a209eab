"""One request, from prompt to pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.call import Call
from costroute_rt.cost.cost_model import Observed
from costroute_rt.engines.bundle.manifest import PreviewSpec
from costroute_rt.engines.bundle.tokenizer import Tokens
from costroute_rt.error import BudgetError, CancelledError, EngineError, Reason
from costroute_rt.family.conditioning import StatesSource, Tensors, stack_rows, text_states, token_tensors, tokenize
from costroute_rt.family.family import Family
from costroute_rt.family.plan import Plan
from costroute_rt.family.resources import Resources
from costroute_rt.generation.loop import Denoiser, Pace, Run
from costroute_rt.generation.planner import plan_calls, route_request
from costroute_rt.generation.stopwatch import Stopwatch
from costroute_rt.generation.warm_up import probe
from costroute_rt.request import Request
from costroute_rt.result import Result, StepEvent
from costroute_rt.route import Route
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.sampling.noise import NoiseStream

if TYPE_CHECKING:
    from PIL.Image import Image

    from costroute_rt.engines.backends.engine import Engine

Pixels = npt.NDArray[np.uint8]


class Generation:
    """The run of one request; `events` may be called once. Meanwhile nothing else may use the same resources."""

    def __init__(self, resources: Resources, request: Request, *, seed: int, cancel: Event | None = None, waited_ms: float = 0.0) -> None:
        self._resources, self._request, self._seed, self._waited_ms, self._cancel = resources, request, seed, waited_ms, cancel
        self._watch = Stopwatch(resources.clock)
        self._observed = Observed()
        self._tokens: dict[tuple[str, str], Tokens] = {}
        """The prompt's tokens, by family and tokenizer."""
        self._encoded: dict[str, Tensors] = {}
        """Outputs of text encoders for the prompt, by the name of their engine."""
        self._left_out = 0
        self._caller_ms = self._loop_ms = 0.0
        self._is_truncated = False

    def events(self) -> Iterator[StepEvent | Result]:
        """A StepEvent after each denoiser call, then the Result. Raises BudgetError, CancelledError, EngineError."""
        calls = plan_calls(self._resources, self._request)
        route = self._route(calls)
        family = self._resources.family(route.chosen)
        plan = family.plan(route.chosen, family.size(self._request))
        for call in calls[route.chosen.name]:
            self._engine(call.engine)
        self._check_cancelled()
        denoiser = Denoiser(self._engine(plan.step.engine), self._condition(family, plan))
        pixels = []
        for index in range(self._request.count):
            self._check_cancelled()
            later = self._request.count - index - 1
            pace = self._pace(plan, route, later)
            noise = NoiseStream([self._seed + index], plan.latent_shape)
            run = Run(denoiser, plan.scheduler, plan.table, noise.draw, pace=pace, clock=self._resources.clock)
            started_s = self._resources.clock()
            while run.left:
                ms = run.advance()
                self._watch.rows_ms.append(ms)
                self._record(plan.step, ms)
                event, yielded_s = self._step_event(run, pace, family, plan, later), self._resources.clock()
                yield event
                self._caller_ms += (self._resources.clock() - yielded_s) * 1000
                self._check_cancelled()
            self._loop_ms += (self._resources.clock() - started_s) * 1000
            self._left_out += len(plan.table) - run.done
            pixels.append(self._decode(run, plan))
        yield self._finish(route, family, plan, np.concatenate(pixels))

    def _route(self, calls: Mapping[str, Sequence[Call]]) -> Route:
        """Choose a candidate for the prompt."""
        resources = self._resources
        source = resources.states_source
        states = None if source is None else self._text_states(resources.main_family, source)
        for call in resources.router_calls:
            self._engine(call.engine)
        try:
            with self._watch.stage("route"):
                return route_request(resources, self._request, calls, states)
        except BudgetError:
            probe(resources, self._request, calls.values())
            raise

    def _text_states(self, family: Family, source: StatesSource) -> TextStates:
        """The prompt's states for the router."""
        tokens = self._tokenize(family, [source.tokenizer])
        return text_states(family.bundle, source, self._encode(family, source.call, source.encoder, tokens), tokens, family.tokenizers)

    def _tokenize(self, family: Family, names: Iterable[str]) -> dict[str, Tokens]:
        """The prompt's tokens by these tokenizers, computed once per request."""
        missing = [name for name in names if (family.name, name) not in self._tokens]
        with self._watch.stage("tokenize"):
            for name, tokens in tokenize(family.tokenizers, self._request.prompt, missing).items():
                self._tokens[family.name, name] = tokens
        return {name: self._tokens[family.name, name] for name in names}

    def _condition(self, family: Family, plan: Plan) -> dict[str, Any]:
        """The conditioning inputs of the step engine by name, on its device."""
        tokens = self._tokenize(family, plan.tokenizers)
        positive = token_tensors(family.tokenizers, tokens)
        for encoder, call in plan.encoders.items():
            positive |= self._encode(family, call, encoder, tokens)
        self._is_truncated = any(each.is_truncated for each in tokens.values())
        negative = self._negative(family, plan, positive) if plan.candidate.is_guided else None
        tensors = stack_rows(positive, negative, plan.sources, plan.size)
        if plan.condition is None:
            step = self._engine(plan.step.engine)
            return {name: step.to_device(array) for name, array in tensors.items()}
        engine = self._engine(plan.condition.engine)
        with self._watch.stage("text") as lap:
            given = {name: engine.to_device(array) for name, array in tensors.items()}
            made = engine.run({name: value for name, value in given.items() if name in engine.inputs})
        self._record(plan.condition, lap.ms)
        move = self._resources.engines.move
        return {name: move(value, plan.condition.engine, plan.step.engine) for name, value in {**given, **made}.items()}

    def _negative(self, family: Family, plan: Plan, positive: Tensors) -> Tensors:
        """The tensors of the negative prompt: encoded text, or zeros if the family uses them for a missing negative prompt."""
        text = self._resources.negative_text(family, self._request)
        with self._watch.stage("tokenize"):
            tokens = tokenize(family.tokenizers, text or "", plan.tokenizers)
        self._is_truncated |= any(each.is_truncated for each in tokens.values())
        found = token_tensors(family.tokenizers, tokens)
        for encoder, call in plan.encoders.items():
            if text is None:
                found |= {name: np.zeros_like(array) for name, array in positive.items() if name.startswith(f"{encoder}.")}
            else:
                make = partial(self._run_encoder, family, call, encoder, tokens)
                found |= self._resources.negatives.get((family.name, encoder, text), make)
        return found

    def _encode(self, family: Family, call: Call, encoder: str, tokens: Mapping[str, Tokens]) -> Tensors:
        """Outputs of one text encoder for the prompt, computed once per request."""
        if call.engine not in self._encoded:
            self._encoded[call.engine] = self._run_encoder(family, call, encoder, tokens)
        return self._encoded[call.engine]

    def _run_encoder(self, family: Family, call: Call, encoder: str, tokens: Mapping[str, Tokens]) -> Tensors:
        engine = self._engine(call.engine)
        with self._watch.stage("text") as lap:
            found = family.encode(encoder, tokens, engine)
        self._record(call, lap.ms)
        return found

    def _engine(self, name: str) -> Engine:
        """The engine, loaded within the request if it is not resident."""
        engine = self._resources.engines.find(name)
        if engine is None:
            with self._watch.stage("swap") as lap:
                engine = self._resources.engines.get(name)
            self._resources.costs.record_load(self._observed, name, lap.ms)
        return engine

    def _pace(self, plan: Plan, route: Route, later: int) -> Pace:
        """The deadline of one image; a route that did not fit the budget has none and runs in full. later: images that follow."""
        costs, max_ms = self._resources.costs, self._request.max_ms
        step_ms, decode_ms = costs.expected_ms(plan.step), costs.expected_ms(plan.decode)
        return Pace(
            self._resources.clock,
            row_ms=step_ms,
            after_ms=decode_ms + later * (len(plan.table) * step_ms + decode_ms),
            finish_at_s=self._watch.started_s + max_ms / 1000 if max_ms is not None and route.option.fits else None,
        )

    def _step_event(self, run: Run, pace: Pace, family: Family, plan: Plan, later: int) -> StepEvent:
        done, spec = len(self._watch.rows_ms), family.bundle.preview
        shows = self._request.preview and spec is not None
        return StepEvent(
            index=done,
            total=done + run.left + later * len(plan.table),
            elapsed_ms=self._watch.elapsed_ms(),
            remaining_ms=pace.remaining_ms(run.left),
            preview=draw_preview(run.denoised_on_host()[0], spec, *plan.size) if shows and spec is not None else None,
        )

    def _decode(self, run: Run, plan: Plan) -> Pixels:
        """Decode the latent of a finished run to uint8[1, height, width, 3] in host memory."""
        if not run.is_finite():
            raise EngineError("its output is not finite", reason=Reason.FAILED, engine=plan.step.engine)
        engine = self._engine(plan.decode.engine)
        with self._watch.stage("decode") as lap:
            latent = self._resources.engines.move(run.latent, plan.step.engine, plan.decode.engine)
            pixels = np.asarray(engine.to_host(engine.run({"latent": latent})["pixels"]))
        self._record(plan.decode, lap.ms)
        return pixels

    def _record(self, call: Call, ms: float) -> None:
        """Record the time of a run, unless its engine was just loaded: first runs are slow and do not predict the next ones."""
        if call.engine not in self._observed.loads:
            self._resources.costs.record_call(self._observed, call, ms)

    def _check_cancelled(self) -> None:
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError

    def _finish(self, route: Route, family: Family, plan: Plan, pixels: Pixels) -> Result:
        watch, max_ms, predicted = self._watch, self._request.max_ms, route.option.cost
        timings = watch.timings(self._waited_ms)
        left_out_ms = self._left_out * sum(watch.rows_ms) / len(watch.rows_ms)
        actual_ms = timings.total_ms + left_out_ms - self._caller_ms
        self._observed.rows = len(watch.rows_ms)
        self._observed.row_overhead_ms = self._loop_ms - sum(watch.rows_ms) - self._caller_ms
        self._observed.request_overhead_ms = timings.outside_ms - self._observed.row_overhead_ms - self._caller_ms
        self._resources.costs.observe(predicted, self._observed, actual_ms=actual_ms)
        outcome = {"predicted_ms": round(route.option.ms, 3), "actual_ms": round(timings.total_ms, 3), "replanned": self._left_out}
        return Result(
            pixels=pixels,
            route=route,
            seed=self._seed,
            timings=timings,
            predicted_ms=predicted.total_ms,
            met=None if max_ms is None else timings.total_ms <= max_ms,
            replanned=self._left_out,
            truncated=self._is_truncated,
            settings={**self._settings(family, plan), **outcome},
        )

    def _settings(self, family: Family, plan: Plan) -> dict[str, Any]:
        resources, request, candidate = self._resources, self._request, plan.candidate
        engine = resources.engines.get(plan.step.engine)
        built = engine.key
        return {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "seed": self._seed,
            "candidate": candidate.name,
            "denoiser": candidate.denoiser,
            "decoder": candidate.decoder,
            "scheduler": plan.scheduler.name,
            "num_inference_steps": candidate.num_inference_steps,
            "guidance_scale": candidate.guidance_scale,
            "height": plan.size[0],
            "width": plan.size[1],
            "family": family.name,
            "revision": family.bundle.revision,
            "backend": resources.setup["backend"] if built is None else built.backend,
            "provider": engine.provider,
            "precision": resources.setup["precision"] if built is None else built.precision,
            "fallback": resources.fallback,
            "version": resources.versions.get("costroute-rt", "unknown"),
            "versions": dict(resources.versions),
            "max_ms": request.max_ms,
        }


def draw_preview(latent: npt.NDArray[np.float32], spec: PreviewSpec, height: int, width: int) -> Image:
    """A rough preview of a clean latent, float32[channels, h, w], by a linear map of each cell to RGB."""
    from PIL import Image

    cells = np.tensordot(latent, np.array(spec.matrix, dtype=np.float32), axes=(0, 0)) + np.array(spec.bias, dtype=np.float32)
    small = (np.clip(cells, 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)
