"""One request, from prompt to pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.call import Call, Stage
from costroute_rt.candidate import Candidate
from costroute_rt.cost.cost_model import Observed
from costroute_rt.engines.bundle.manifest import PreviewSpec
from costroute_rt.engines.bundle.name import Size
from costroute_rt.engines.bundle.tokenizer import Tokens
from costroute_rt.error import CancelledError, EngineError, Reason
from costroute_rt.routing.router_bundle import states_source
from costroute_rt.family.conditioning import Tensors, encode_text, stack_rows, text_states, token_tensors, tokenize
from costroute_rt.family.engine_set import run_on_host
from costroute_rt.family.family import Family
from costroute_rt.family.resources import Resources
from costroute_rt.generation.loop import Denoiser, Run
from costroute_rt.generation.pace import Pace
from costroute_rt.generation.planner import plan_calls, route_request
from costroute_rt.generation.stopwatch import Stopwatch
from costroute_rt.request import Request
from costroute_rt.result import Result, StepEvent
from costroute_rt.route import Route
from costroute_rt.sampling.noise import NoiseStream

if TYPE_CHECKING:
    from PIL.Image import Image

    from costroute_rt.engines.backends.engine import Engine

Pixels = npt.NDArray[np.uint8]


class Generation:
    """One request on its way; `events` runs it, once. Nothing else may use the same resources meanwhile."""

    def __init__(self, resources: Resources, request: Request, *, seed: int, cancel: Event | None = None, waited_ms: float = 0.0) -> None:
        self._resources, self._request, self._seed, self._waited_ms, self._cancel = resources, request, seed, waited_ms, cancel
        self._watch = Stopwatch(resources.clock)
        self._observed = Observed()
        self._encoded: dict[tuple[str, str], Tensors] = {}
        """The prompt's encodings, by family and text encoder."""
        self._left_out = 0

    def events(self) -> Iterator[StepEvent | Result]:
        """A StepEvent after each denoiser call, then the Result. Raises BudgetError, CancelledError, EngineError."""
        plans = plan_calls(self._resources, self._request)
        with self._watch.stage("tokenize"):
            prompt = {name: tokenize(family.tokenizers, self._request.prompt) for name, family in self._resources.families.items()}
        route = self._route(plans, prompt)
        candidate, calls = route.chosen, plans[route.chosen.name]
        family = self._resources.family(candidate)
        self._check_cancelled()
        size = family.size(self._request)
        conditions, is_truncated = self._condition(family, candidate, calls, prompt[family.name], size)
        step, decode = (next(call for call in calls if call.stage is stage) for stage in (Stage.DENOISE, Stage.DECODE))
        denoiser = Denoiser(self._engine(step.engine), conditions)
        pixels, rows = [], len(family.table(candidate, size))
        for index in range(self._request.count):
            self._check_cancelled()
            later = self._request.count - index - 1
            run, pace = self._start_run(denoiser, family, candidate, size, (step, decode, later), route)
            while run.left:
                ms = run.advance()
                self._watch.rows_ms.append(ms)
                self._record(step, ms)
                yield self._step_event(run, pace, family, denoiser, size, later * rows)
                self._check_cancelled()
            self._left_out += rows - run.done
            pixels.append(self._decode(run, step, decode, denoiser))
        yield self._finish(route, family, step, np.concatenate(pixels), truncated=is_truncated)

    def _route(self, plans: Mapping[str, Sequence[Call]], prompt: Mapping[str, Mapping[str, Tokens]]) -> Route:
        """The decision; afterwards the engines of the chosen candidate are resident."""
        resources, states = self._resources, None
        if resources.quality.needs_states:
            family = resources.main_family
            encoder, _ = states_source(family.bundle)
            tensors = self._encode(family, prompt[family.name], encoder)
            states = text_states(family.bundle, tensors, prompt[family.name], family.tokenizers)
        for call in resources.router_calls:
            self._engine(call.engine)
        with self._watch.stage("route"):
            route = route_request(resources, self._request, plans, states)
        for call in plans[route.chosen.name]:
            self._engine(call.engine)
        return route

    def _condition(
        self, family: Family, candidate: Candidate, calls: Sequence[Call], prompt: Mapping[str, Tokens], size: Size
    ) -> tuple[dict[str, Any], bool]:
        """What the steps read of the text, on the device of the step engine, and whether a text was cut short."""
        encoders = family.encoders(candidate)
        positive = self._texts(family, encoders, prompt)
        negative, is_truncated = None, any(tokens.is_truncated for tokens in prompt.values())
        if candidate.is_guided:
            negative, was_cut = self._negative_texts(family, encoders, positive)
            is_truncated = is_truncated or was_cut
        tensors = stack_rows(positive, negative, family.sources(candidate), size)
        step = next(call.engine for call in calls if call.stage is Stage.DENOISE)
        condition = next((call for call in calls if call.engine == family.engine(candidate.denoiser, "condition")), None)
        if condition is None:
            return {name: self._engine(step).to_device(array) for name, array in tensors.items()}, is_truncated
        engine = self._engine(condition.engine)
        with self._watch.stage("text") as lap:
            given = {name: engine.to_device(array) for name, array in tensors.items()}
            outputs = engine.run({name: value for name, value in given.items() if name in engine.inputs})
        self._record(condition, lap.ms)
        move = self._resources.engines.move
        return {name: move(value, condition.engine, step) for name, value in {**given, **outputs}.items()}, is_truncated

    def _texts(self, family: Family, encoders: Sequence[str], tokens: Mapping[str, Tokens]) -> Tensors:
        """The prompt's tensors: outputs of its encoders, masks and lengths."""
        found = token_tensors(family.tokenizers, tokens)
        for encoder in encoders:
            found |= self._encode(family, tokens, encoder)
        return found

    def _negative_texts(self, family: Family, encoders: Sequence[str], positive: Tensors) -> tuple[Tensors, bool]:
        """The same of the negative prompt, and whether it was cut short."""
        text = self._resources.negative_text(family, self._request)
        with self._watch.stage("tokenize"):
            tokens = tokenize(family.tokenizers, text or "")
        found = token_tensors(family.tokenizers, tokens)
        for encoder in encoders:
            if text is None:
                found |= {name: np.zeros_like(array) for name, array in positive.items() if name.startswith(f"{encoder}.")}
            else:
                run = partial(self._run_encoder, family, encoder)
                make = partial(encode_text, family.bundle, family.tokenizers, encoder, tokens, run)
                found |= self._resources.negatives.get((family.name, encoder, text), make)
        return found, any(each.is_truncated for each in tokens.values())

    def _encode(self, family: Family, tokens: Mapping[str, Tokens], encoder: str) -> Tensors:
        """Outputs of one text encoder for the prompt, once per request."""
        key = family.name, encoder
        if key not in self._encoded:
            run = partial(self._run_encoder, family, encoder)
            self._encoded[key] = encode_text(family.bundle, family.tokenizers, encoder, tokens, run)
        return self._encoded[key]

    def _run_encoder(self, family: Family, encoder: str, arrays: Tensors) -> Tensors:
        call = Call(family.engine(encoder, "encode"), Stage.TEXT)
        engine = self._engine(call.engine)
        with self._watch.stage("text") as lap:
            outputs = run_on_host(engine, arrays)
        self._record(call, lap.ms)
        return outputs

    def _engine(self, name: str) -> Engine:
        """An engine, loaded within the request where it is not resident."""
        engine = self._resources.engines.find(name)
        if engine is None:
            with self._watch.stage("swap") as lap:
                engine = self._resources.engines.get(name)
            self._resources.costs.record_load(self._observed, name, lap.ms)
        return engine

    def _start_run(
        self, denoiser: Denoiser, family: Family, candidate: Candidate, size: Size, calls: tuple[Call, Call, int], route: Route
    ) -> tuple[Run, Pace]:
        """The next image's run and the guard of its deadline; a route that did not fit runs in full, whatever it takes.

        calls: a step, a decode, and the number of images that follow.
        """
        costs, (step, decode, later), max_ms = self._resources.costs, calls, self._request.max_ms
        table, image = family.table(candidate, size), family.bundle.image
        step_ms, decode_ms = costs.expected_ms(step), costs.expected_ms(decode)
        deadline_s = self._watch.started_s + max_ms / 1000 if max_ms is not None and route.option.fits else None
        after_ms = decode_ms + later * (len(table) * step_ms + decode_ms)
        pace = Pace(self._resources.clock, row_ms=step_ms, after_ms=after_ms, finish_at_s=deadline_s)
        shape = image.latent_channels, size[0] // image.vae_scale_factor, size[1] // image.vae_scale_factor
        noise = NoiseStream([self._seed + self._request.count - 1 - later], shape)
        run = Run(denoiser, family.tables.config(candidate.scheduler), table, noise.draw, pace=pace, clock=self._resources.clock)
        return run, pace

    def _step_event(self, run: Run, pace: Pace, family: Family, denoiser: Denoiser, size: Size, later: int) -> StepEvent:
        """later: rows of the images that follow."""
        done, spec = len(self._watch.rows_ms), family.bundle.preview
        shows = self._request.preview and spec is not None
        return StepEvent(
            index=done,
            total=done + run.left + later,
            elapsed_ms=self._watch.elapsed_ms(),
            remaining_ms=pace.remaining_ms(run.left),
            preview=draw_preview(denoiser.engine.to_host(run.denoised)[0], spec, *size) if shows and spec is not None else None,
        )

    def _decode(self, run: Run, step: Call, decode: Call, denoiser: Denoiser) -> Pixels:
        """uint8[1, height, width, 3], on the host."""
        if not np.isfinite(denoiser.engine.to_host(run.latent)).all():
            raise EngineError("it made numbers that are not finite", reason=Reason.FAILED, engine=step.engine)
        engine = self._engine(decode.engine)
        with self._watch.stage("decode") as lap:
            latent = self._resources.engines.move(run.latent, step.engine, decode.engine)
            pixels = np.asarray(engine.to_host(engine.run({"latent": latent})["pixels"]))
        self._record(decode, lap.ms)
        return pixels

    def _record(self, call: Call, ms: float) -> None:
        """Note a run, unless its engine was just loaded: first runs are slow and do not predict the next."""
        if call.engine not in self._observed.loads:
            self._resources.costs.record_call(self._observed, call, ms)

    def _check_cancelled(self) -> None:
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError

    def _finish(self, route: Route, family: Family, step: Call, pixels: Pixels, *, truncated: bool) -> Result:
        watch, max_ms, predicted = self._watch, self._request.max_ms, route.option.cost
        timings = watch.timings(self._waited_ms)
        left_out_ms = self._left_out * sum(watch.rows_ms) / len(watch.rows_ms)
        self._resources.costs.observe(
            predicted, self._observed, actual_ms=timings.total_ms + left_out_ms, overhead_ms=timings.outside_ms
        )  # fmt: skip
        settings = self._settings(route, family, step)
        return Result(
            pixels=pixels,
            route=route,
            seed=self._seed,
            timings=timings,
            predicted_ms=predicted.total_ms,
            met=None if max_ms is None else timings.total_ms <= max_ms,
            replanned=self._left_out,
            truncated=truncated,
            settings={**settings, "actual_ms": round(timings.total_ms, 3), "replanned": self._left_out},
        )

    def _settings(self, route: Route, family: Family, step: Call) -> dict[str, Any]:
        resources, request, candidate = self._resources, self._request, route.chosen
        engine = resources.engines.get(step.engine)
        built = resources if engine.key is None else engine.key
        height, width = family.size(request)
        return {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "seed": self._seed,
            "candidate": candidate.name,
            "denoiser": candidate.denoiser,
            "decoder": candidate.decoder,
            "scheduler": family.tables.config(candidate.scheduler).name,
            "num_inference_steps": candidate.num_inference_steps,
            "guidance_scale": candidate.guidance_scale,
            "height": height,
            "width": width,
            "family": family.name,
            "revision": family.bundle.revision,
            "backend": built.backend,
            "provider": engine.provider,
            "precision": built.precision,
            "fallback": resources.fallback,
            "version": resources.versions.get("costroute-rt", "unknown"),
            "versions": dict(resources.versions),
            "max_ms": request.max_ms,
            "predicted_ms": round(route.option.ms, 3),
        }


def draw_preview(latent: npt.NDArray[np.float32], spec: PreviewSpec, height: int, width: int) -> Image:
    """A rough image of a clean latent, float32[channels, h, w], by a linear map of each cell."""
    from PIL import Image

    cells = np.tensordot(latent, np.array(spec.matrix, dtype=np.float32), axes=(0, 0)) + np.array(spec.bias, dtype=np.float32)
    small = (np.clip(cells, 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)
