"""One request, from prompt to pixels."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from costroute_rt.call import Call
from costroute_rt.candidate import Candidate
from costroute_rt.error import BudgetError, EngineError, Reason
from costroute_rt.family.family import Family
from costroute_rt.family.plan import Plan
from costroute_rt.family.resources import Resources
from costroute_rt.generation.autoencoder import Pixels, decode, encode_source
from costroute_rt.generation.conditioner import Conditioner
from costroute_rt.generation.engine_use import EngineUse
from costroute_rt.generation.guard import Guard, Pace, Way
from costroute_rt.generation.least_cost import LeastCosts, find_least_cost
from costroute_rt.generation.loop import Run
from costroute_rt.generation.planner import plan_calls, route_arrival, route_request
from costroute_rt.generation.preview import draw_preview
from costroute_rt.generation.queue import Device, Forecast, Ticket
from costroute_rt.generation.report import Made, Report
from costroute_rt.generation.stopwatch import Stopwatch
from costroute_rt.generation.warm_up import probe
from costroute_rt.judgement import Judgement
from costroute_rt.request import Request
from costroute_rt.result import Result, StepEvent
from costroute_rt.route import Cost, Route
from costroute_rt.sampling.noise import NoiseStream

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine

_log = logging.getLogger(__name__)
_NOTICED_MS = 1.0
"""After a shorter wait the choice is not made again."""


class Generation:
    """The run of one request: `prepare` chooses a candidate, then each item of `units` is one unit of work for the device."""

    def __init__(self, resources: Resources, request: Request, device: Device, *, seed: int, spent_ms: float = 0.0) -> None:
        """The request's clock starts now; spent_ms: what it shows."""
        self._resources, self._request, self._device, self._seed = resources, request, device, seed
        self.watch = Stopwatch(resources.clock, spent_ms)
        self.ticket = Ticket() if request.max_ms is None else Ticket(self.watch.started_s + request.max_ms / 1000)
        self._engines = EngineUse(resources, self.watch)
        self._conditioner = Conditioner(resources, request, self._engines, self.watch)
        self._run: Run | None = None
        self._reserve_share = 0.0
        """Distance from the expected time of its work to the 95th percentile, as a share."""
        self.reports_steps = True
        """Whether anybody wants the StepEvents."""
        self.route: Route | None = None
        """The decision; None until the request is accepted."""

    def note_wait(self, waited_ms: float) -> None:
        """Count time in which other requests ran."""
        self.watch.waited_ms += waited_ms
        if self._run is not None:
            self._run.note_wait(waited_ms / 1000)

    def release(self) -> None:
        """End the use of engines, and drop the tensors in their memory."""
        self._run = None
        self._conditioner.clear()
        self._engines.lease.release()

    def expect(self, least: LeastCosts, *, is_checked: bool) -> None:
        """Reserve the least time that the request may need, until its prompt is judged: those that come meanwhile count with it.

        is_checked: whether to raise BudgetError if that does not fit, whatever the prompt; also raises ConfigError, EngineError.
        """
        self.ticket.is_judged = False
        self._note_cost(least.find(self._request, self._forecast(is_early=True), is_checked=is_checked))

    def prepare(self) -> None:
        """Judge the prompt, choose a candidate and reserve its time; may run beside another request's unit of work.

        Raises BudgetError if nothing fits, with the wait for other requests; PromptError, EngineError.
        """
        resources = self._resources
        resources.swap_in()
        with self.watch.stage("tokenize"):  # the calls depend on the length of the texts
            self._calls = plan_calls(resources, self._request)
        with self.watch.stage("route"):  # judging takes time, which is saved if nothing can fit
            forecast = self._forecast()
            if self._request.max_ms is not None or forecast.slack_ms < math.inf:
                find_least_cost(resources, self._request, self._calls, forecast)
        with self._engines.reading():
            judgement = self._judge()
        with self.watch.stage("route"), self._device.reserving(self.ticket):
            self._reserve(route_arrival(resources, self._request, self._calls, judgement, self.ticket, self._forecast))

    def probe(self) -> None:
        """Measure an engine after a refusal, if it may rest on load that is over."""
        with self._engines.reading():
            probe(self._resources, self._request, self._calls.values())

    def units(self) -> Iterator[StepEvent | Result | None]:
        """A StepEvent after each denoiser call, if wanted, the Result at the end, and None after other units. Raises EngineError."""
        self._choose_again()
        route = self._route
        family = self._resources.family(route.chosen)
        plan = self._plan_of(family, route.chosen)
        self._engines.plan_phases(self._calls[route.chosen.name], self._request.count)
        for call in () if self._engines.lease.is_limited else self._calls[route.chosen.name]:
            is_resident = self._engines.lease.find(call.engine) is not None
            self._engines.get(call.engine)
            if not is_resident:
                yield None
        source = encode_source(self._request, plan, self._engines, self.watch)
        if source is not None:
            yield None
        self._engines.enter_phase(*(call.engine for call in plan.encoders.values()))
        denoiser, plain = self._conditioner.denoisers(family, plan)
        report = self._begin_report(family, plan, denoiser.engine)
        pixels = []
        for index in range(self._request.count):
            later = self._request.count - index - 1
            guard = self._make_guard(family, plan, route, later)
            noise = NoiseStream([self._seed + index], plan.latent_shape)
            clock = self._resources.clock
            run = self._run = Run(denoiser, plan.scheduler, plan.table, noise.draw, guard=guard, clock=clock, plain=plain, source=source)
            self._note_run_left(run, guard)
            yield None
            while run.left:
                yield self._advance(run, guard, family, plan, later)
            self._check_finite(run, plan)
            with self._device.reserving(self.ticket):
                guard.choose(run.done, 0)
                self._note_run_left(run, guard)
            made = self._plan_of(family, route.find(guard.way.name).candidate)
            report.made.append(Made(made, run.done))
            decoded = decode(run.latent, self._last_step(made, run).engine, made, self._engines, self.watch)
            pixels.append(decoded if source is None else source.paste(decoded))
        yield self._finish(report, pixels[0] if len(pixels) == 1 else np.concatenate(pixels))

    def _judge(self) -> Judgement:
        """The expected quality of each candidate for the prompt."""
        return self._resources.keep_judgement(self._request, self._judge_anew)

    def _judge_anew(self) -> Judgement:
        resources = self._resources
        self._engines.enter_phase(*(call.engine for call in resources.routing_calls()))
        source = resources.states_source
        states = None if source is None else self._conditioner.text_states(resources.main_family, source)
        for call in resources.router_calls:
            self._engines.get(call.engine)
        with self.watch.stage("route"):
            return resources.quality.judge(resources.words(self._request), states)

    def _done_ms(self) -> float:
        """The work before the first unit that is done: at most what the predicted cost contains for it."""
        costs, stages = self._resources.costs, self.watch.stages
        overhead_ms = min(stages["tokenize"] + stages["route"], costs.request_overhead_ms())
        return overhead_ms + self._engines.done_ms()

    def _forecast(self, *, is_early: bool = False) -> Forecast:
        """What the other requests mean for this one; the time that has passed counts as waiting too, but for work that was predicted.

        It is read last: a unit of another request that ends meanwhile counts twice instead of not at all.
        """
        found = self._device.forecast(self.ticket, is_early=is_early)
        return found.after(self.watch.elapsed_ms(), self._done_ms())

    def _choose_again(self) -> None:
        """After waiting: more time may be left than was expected, or less. What was accepted is made, if need be late."""
        judgement = self._route.judgement
        if self._request.max_ms is None or self.watch.waited_ms < _NOTICED_MS or judgement is None:
            return
        with self.watch.stage("route"), self._device.reserving(self.ticket):
            try:
                self._reserve(route_request(self._resources, self._request, self._calls, judgement, self._forecast()))
            except BudgetError as error:
                _log.info("late: %s", error)

    def _reserve(self, route: Route) -> None:
        self._route = self.route = route
        self.ticket.is_judged = True
        self._note_cost(route.option.cost)

    def _note_cost(self, cost: Cost) -> None:
        """Report the expected time of the whole work to the queue."""
        own_ms = cost.total_ms - cost.queue_ms
        self._reserve_share = (cost.own_p95_ms - own_ms) / own_ms if own_ms > 0 else 0.0
        self._device.note_work(self.ticket, max(own_ms - self._done_ms(), 0.0), reserve_ms=cost.own_p95_ms - own_ms)

    def _note_run_left(self, run: Run, guard: Guard) -> float:
        """Report the expected time of the work that is left, and of the next unit, to the queue; returns the former."""
        left_ms = max(guard.remaining_ms(run.work_left), 0.0)
        unit_ms = guard.pace.row_ms if run.left else math.inf
        self._device.note_work(self.ticket, left_ms, reserve_ms=self._reserve_share * left_ms, unit_ms=unit_ms)
        return left_ms

    def _plan_of(self, family: Family, candidate: Candidate) -> Plan:
        """The plan of a candidate for this request."""
        return family.plan(candidate, family.size(self._request), self._request.scheduler, self._request.used_strength)

    def _advance(self, run: Run, guard: Guard, family: Family, plan: Plan, later: int) -> StepEvent | None:
        """Run one row."""
        if self._engines.lease.is_limited:  # it may have left while another request ran
            run.use(self._engines.get(plan.step.engine), None if plan.plain_step is None else self._engines.get(plan.plain_step.engine))
        began_s = self._resources.clock()
        if guard.pace.has_deadline:
            with self._device.reserving(self.ticket):
                run.replan()
                self._note_run_left(run, guard)
        ms = run.advance()
        self.watch.rows_ms.append(ms)
        self._engines.note_run(self._last_step(plan, run), ms)
        left_ms = self._note_run_left(run, guard)
        event = self._step_event(run, left_ms, family, plan, later) if self.reports_steps else None
        self.watch.between_rows_ms += (self._resources.clock() - began_s) * 1000 - ms
        return event

    @staticmethod
    def _last_step(plan: Plan, run: Run) -> Call:
        """The call of the row that ran last."""
        return plan.plain_step if run.is_plain and plan.plain_step is not None else plan.step

    def _make_guard(self, family: Family, plan: Plan, route: Route, later: int) -> Guard:
        """The guard of one image; a route that did not fit the budget has no deadline and runs in full. later: images that follow."""
        costs, cost, max_ms = self._resources.costs, route.option.cost, self._request.max_ms
        own_ms, has_deadline = cost.total_ms - cost.queue_ms, max_ms is not None and route.option.fits
        pace = Pace(
            self._resources.clock,
            row_ms=costs.expected_ms(plan.step),
            finish_at_s=self.watch.started_s + max_ms / 1000 if max_ms is not None and has_deadline else None,
            spread=(cost.p95_ms - cost.total_ms) / own_ms if own_ms > 0 else 0.0,
        )
        later_calls = (plan.step, plan.plain_step, plan.decode)
        later_ms = later * sum(costs.runs_ms(call) for call in later_calls if call is not None)
        plans = [plan, *(self._relatives(family, route) if has_deadline else ())]
        values = {option.candidate.name: option.value(route.lam) for option in route.options}
        ways = [
            Way(name, each.table, each.decode.engine, costs.runs_ms(each.decode) + later_ms, values[name])
            for name, each in ((each.candidate.name, each) for each in plans)
        ]
        return Guard(pace, ways, tolerance=route.tolerance, may_gain=lambda: self._device.is_alone(self.ticket))

    def _relatives(self, family: Family, route: Route) -> Iterator[Plan]:
        """The plans that a run can change to: of the same denoiser, with a decoder that is loaded and stays so."""
        allowed = {option.candidate.name for option in route.options}
        for candidate in family.relatives(route.chosen):
            plan = self._plan_of(family, candidate) if candidate.name in allowed else None
            if plan is not None and not self._engines.lease.is_limited and self._engines.lease.find(plan.decode.engine) is not None:
                yield plan

    def _step_event(self, run: Run, left_ms: float, family: Family, plan: Plan, later: int) -> StepEvent:
        done, spec = len(self.watch.rows_ms), family.bundle.preview
        shows = self._request.preview and spec is not None
        return StepEvent(
            index=done,
            total=done + run.left + later * len(plan.table),
            elapsed_ms=self.watch.elapsed_ms(),
            remaining_ms=self._device.forecast(self.ticket).queue_ms + left_ms,
            preview=draw_preview(run.denoised_on_host()[0], spec, *plan.size) if shows and spec is not None else None,
        )

    def _check_finite(self, run: Run, plan: Plan) -> None:
        if not run.is_finite():
            raise EngineError("its output is not finite", reason=Reason.FAILED, engine=self._last_step(plan, run).engine)

    def _begin_report(self, family: Family, plan: Plan, engine: Engine) -> Report:
        """The report before the first image. engine: the denoiser's, which may be replaced by another one later."""
        return Report(
            resources=self._resources,
            request=self._request,
            seed=self._seed,
            route=self._route,
            family=family,
            plan=plan,
            is_truncated=self._conditioner.is_truncated,
            step_key=engine.key,
            step_provider=engine.provider,
        )

    def _finish(self, report: Report, pixels: Pixels) -> Result:
        """The result; the cost model learns what the request took."""
        timings = self.watch.timings()
        self._engines.observe(report.route.option.cost, timings, spared_ms=report.spared_ms(timings))
        return report.result(pixels, timings)
