"""One request, from prompt to pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.cost.correction import Clock
from costroute_rt.cost.cost_model import Observed, Work
from costroute_rt.engines.bundle.bundle import PreviewSpec
from costroute_rt.error import CancelledError, EngineError, Reason
from costroute_rt.family.conditioning import States, as_text_states, condition_text, encode_text
from costroute_rt.family.parts import Parts
from costroute_rt.family.prompt import Tokens
from costroute_rt.generation.loop import Denoiser, Pace, denoise
from costroute_rt.generation.planner import plan_works, route_request
from costroute_rt.request import Request
from costroute_rt.result import Result, StepEvent, Timings
from costroute_rt.route import Route
from costroute_rt.sampling.noise import NoiseStream

if TYPE_CHECKING:
    from PIL.Image import Image

    from costroute_rt.engines.backends.engine import Engine

Pixels = npt.NDArray[np.uint8]


class Generation:
    """One request on its way; `events` runs it, once. Nothing else may use the same parts meanwhile."""

    def __init__(
        self, parts: Parts, request: Request, *, seed: int, cancel: Event | None = None, preview: bool = False, waited_ms: float = 0.0
    ) -> None:
        self._parts, self._request, self._seed, self._waited_ms = parts, request, seed, waited_ms
        self._cancel, self._preview = cancel, preview
        self._watch = Stopwatch(parts.clock)
        self._observed = Observed()
        self._rows_ms: list[float] = []
        self._left_out = 0

    def events(self) -> Iterator[StepEvent | Result]:
        """A StepEvent after each denoiser call, then the Result. Raises BudgetError, CancelledError, EngineError."""
        parts, watch = self._parts, self._watch
        works = plan_works(parts, self._request)
        with watch.stage("tokenize"):
            positive = parts.tokenizer.encode(self._request.prompt)
            negative = parts.tokenizer.encode(self._request.negative_prompt)
        states = self._encode(positive) if parts.quality.needs_states else None
        for name in parts.router_engines:
            self._engine(name)
        with watch.stage("route"):
            known = None if states is None else as_text_states(states, positive)
            route = route_request(parts, self._request, works, known)
        work = works[route.chosen.name]
        for name in work.loads:
            self._engine(name)
        self._check_cancelled()
        if states is None:
            states = self._encode(positive)
        if route.chosen.is_guided:
            states = np.concatenate([self._encode_negative(negative), states])
        pixels = yield from self._images(route, work, states)
        yield self._finish(route, work, pixels, truncated=positive.is_truncated or negative.is_truncated)

    def _engine(self, name: str) -> Engine:
        """An engine, loaded within the request where it is not resident."""
        engine = self._parts.engines.find(name)
        if engine is None:
            with self._watch.stage("swap") as lap:
                engine = self._parts.engines.get(name)
            self._parts.costs.record_load(self._observed, name, lap.ms)
        return engine

    def _encode(self, tokens: Tokens) -> States:
        engine = self._engine(self._parts.encode)
        with self._watch.stage("text") as lap:
            states = encode_text(engine, tokens)
        self._record(self._parts.encode, lap.ms)
        return states

    def _encode_negative(self, tokens: Tokens) -> States:
        text = self._request.negative_prompt
        states = self._parts.negatives.get(text)
        if states is None:
            states = self._encode(tokens)
            self._parts.negatives.put(text, states)
        return states

    def _conditions(self, work: Work, step: Engine, states: States) -> dict[str, Any]:
        """What the steps read of the text, on the device."""
        if work.condition is None:
            return {"text_states": step.to_device(states)}
        engine = self._engine(work.condition)
        with self._watch.stage("text") as lap:
            conditions = condition_text(engine, states)
        self._record(work.condition, lap.ms, batch=work.passes)
        return {name: self._parts.engines.move(value, work.condition, work.step) for name, value in conditions.items()}

    def _images(self, route: Route, work: Work, states: States) -> Generator[StepEvent, None, Pixels]:
        """uint8[count, height, width, 3], batch after batch."""
        candidate, engine = route.chosen, self._engine(work.step)
        scale = candidate.guidance_scale if candidate.is_guided else None
        step = Denoiser(engine, self._conditions(work, engine, states), guidance_scale=scale)
        pixels, first = [], self._seed
        for position, batch in enumerate(work.batches):
            latent = yield from self._latent(step, engine, route, work, position, range(first, first + batch))
            self._check_cancelled()
            pixels.append(self._decode(work, latent, batch))
            first += batch
        return pixels[0] if len(pixels) == 1 else np.concatenate(pixels)

    def _latent(
        self, step: Denoiser, engine: Engine, route: Route, work: Work, position: int, seeds: range
    ) -> Generator[StepEvent, None, Any]:
        """One batch's final latent, on the device."""
        parts, batch = self._parts, len(seeds)
        table = parts.tables.table(route.chosen)
        factor = parts.bundle.image.vae_scale_factor
        shape = (parts.bundle.image.latent_channels, self._request.height // factor, self._request.width // factor)
        noise = NoiseStream(seeds, shape)
        pace = self._pace(route, work, position)
        latent = engine.to_device(noise.draw() * np.float32(table.initial_noise_scale))
        rows = denoise(
            step,
            table,
            latent,
            zeros=parts.zeros.get(engine, (batch, *shape)),
            draw_noise=lambda: engine.to_device(noise.draw()),
            pace=pace,
            shorten=parts.tables.shorten(route.chosen),
            clock=parts.clock,
        )
        later = work.rows * (len(work.batches) - position - 1)
        row = None
        self._check_cancelled()
        for row in rows:
            self._rows_ms.append(row.ms)
            self._record(work.step, row.ms, batch=batch, area=work.area)
            done = len(self._rows_ms)
            yield StepEvent(
                index=done,
                total=done + row.total - row.done + later,
                elapsed_ms=self._watch.elapsed_ms(),
                remaining_ms=pace.remaining_ms(row.total - row.done),
                preview=self._draw_preview(engine.to_host(row.denoised)) if self._preview else None,
            )
            self._check_cancelled()
        if row is None or not np.isfinite(engine.to_host(row.latent)).all():
            raise EngineError("it made numbers that are not finite", reason=Reason.FAILED, engine=work.step)
        self._left_out += work.rows - row.total
        return row.latent

    def _pace(self, route: Route, work: Work, position: int) -> Pace:
        """The guard of one batch's deadline; a route that did not fit runs in full, whatever it takes."""
        costs, batch, later = self._parts.costs, work.batches[position], work.batches[position + 1 :]
        after_ms = costs.expected_ms(work.decode, batch, work.area)
        for size in later:
            after_ms += work.rows * costs.expected_ms(work.step, size, work.area) + costs.expected_ms(work.decode, size, work.area)
        keeps = self._request.max_ms is not None and route.option.fits
        return Pace(
            self._parts.clock,
            row_ms=costs.expected_ms(work.step, batch, work.area),
            after_ms=after_ms,
            finish_at_s=self._watch.started_s + self._request.max_ms / 1000 if keeps and self._request.max_ms is not None else None,
        )

    def _decode(self, work: Work, latent: Any, batch: int) -> Pixels:
        """uint8[batch, height, width, 3], on the host."""
        engine = self._engine(work.decode)
        with self._watch.stage("decode") as lap:
            latent = self._parts.engines.move(latent, work.step, work.decode)
            pixels = np.asarray(engine.to_host(engine.run({"latent": latent})["pixels"]))
        self._record(work.decode, lap.ms, batch=batch, area=work.area)
        return pixels

    def _record(self, name: str, ms: float, *, batch: int = 1, area: float = 1.0) -> None:
        """Note a call, unless its engine was just loaded: first calls are slow and say little about the next."""
        if name not in self._observed.loads:
            self._parts.costs.record_call(self._observed, name, ms, batch=batch, area=area)

    def _check_cancelled(self) -> None:
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError

    def _draw_preview(self, denoised: npt.NDArray[np.float32]) -> Image | None:
        spec = self._parts.bundle.preview
        return None if spec is None else draw_preview(denoised[0], spec, self._request.height, self._request.width)

    def _finish(self, route: Route, work: Work, pixels: Pixels, *, truncated: bool) -> Result:
        watch, max_ms, predicted = self._watch, self._request.max_ms, route.option.cost
        timings = watch.timings(self._rows_ms, self._waited_ms)
        left_out_ms = self._left_out * sum(self._rows_ms) / len(self._rows_ms)
        self._parts.costs.observe(
            predicted, self._observed, actual_ms=timings.total_ms + left_out_ms, overhead_ms=timings.outside_ms
        )  # fmt: skip
        return Result(
            pixels=pixels,
            route=route,
            seed=self._seed,
            timings=timings,
            predicted_ms=predicted.total_ms,
            met=None if max_ms is None else timings.total_ms <= max_ms,
            replanned=self._left_out,
            truncated=truncated,
            settings=self._settings(route, work, timings),
        )

    def _settings(self, route: Route, work: Work, timings: Timings) -> dict[str, Any]:
        parts, request, candidate = self._parts, self._request, route.chosen
        engine = parts.engines.get(work.step)
        built = parts if engine.key is None else engine.key
        return {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "seed": self._seed,
            "candidate": candidate.name,
            "denoiser": candidate.denoiser,
            "decoder": candidate.decoder,
            "scheduler": parts.tables.config(candidate).name,
            "num_inference_steps": candidate.num_inference_steps,
            "guidance_scale": candidate.guidance_scale,
            "height": request.height,
            "width": request.width,
            "family": parts.bundle.family,
            "revision": parts.bundle.revision,
            "backend": built.backend,
            "provider": engine.provider,
            "precision": built.precision,
            "fallback": parts.fallback,
            "version": parts.versions.get("costroute-rt", "unknown"),
            "versions": dict(parts.versions),
            "max_ms": request.max_ms,
            "predicted_ms": round(route.option.ms, 3),
            "actual_ms": round(timings.total_ms, 3),
            "replanned": self._left_out,
        }


class Lap:
    """How long one stretch took, once it is over."""

    ms = 0.0


class Stopwatch:
    """Adds up the milliseconds of each stage, from the moment it is made."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stages: defaultdict[str, float] = defaultdict(float)
        self.started_s = clock()

    @contextmanager
    def stage(self, name: str) -> Iterator[Lap]:
        """Counts what happens inside towards `name`."""
        lap, started = Lap(), self._clock()
        yield lap
        lap.ms = (self._clock() - started) * 1000
        self._stages[name] += lap.ms

    def elapsed_ms(self) -> float:
        """Since the start."""
        return (self._clock() - self.started_s) * 1000

    def timings(self, rows_ms: list[float], waited_ms: float) -> Timings:
        """Everything so far."""
        stages, total_ms = self._stages, self.elapsed_ms()
        engines_ms = stages["text"] + stages["swap"] + sum(rows_ms) + stages["decode"]
        return Timings(
            tokenize_ms=stages["tokenize"],
            route_ms=stages["route"],
            text_ms=stages["text"],
            swap_ms=stages["swap"],
            denoise_ms=tuple(rows_ms),
            decode_ms=stages["decode"],
            total_ms=total_ms,
            outside_ms=total_ms - engines_ms,
            waited_ms=waited_ms,
        )


def draw_preview(latent: npt.NDArray[np.float32], spec: PreviewSpec, height: int, width: int) -> Image:
    """A rough picture of a clean latent, float32[channels, h, w], by a linear map of each cell."""
    from PIL import Image

    cells = np.tensordot(latent, np.array(spec.matrix, dtype=np.float32), axes=(0, 0)) + np.array(spec.bias, dtype=np.float32)
    small = (np.clip(cells, 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)
