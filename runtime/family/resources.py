"""Resources of a runtime: families, engines, costs and the quality estimate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from costroute_rt.backend_choice import BackendChoice
from costroute_rt.call import Call
from costroute_rt.candidate import Candidate, find_candidate
from costroute_rt.cost.correction import Clock
from costroute_rt.cost.cost_model import CostModel
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.name import EngineName
from costroute_rt.error import ConfigError, EngineError
from costroute_rt.family.conditioning import Encodings, StatesSource, text_states
from costroute_rt.family.engine_set import EngineSet, Lease
from costroute_rt.family.family import Family
from costroute_rt.family.memory import estimate_bytes, find_phases
from costroute_rt.family.reading import Reading
from costroute_rt.family.texts import Texts, chunk_key
from costroute_rt.family.upgrade import Upgrade
from costroute_rt.judgement import Judgement
from costroute_rt.request import Request
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.routing.quality import QualityEstimator
from costroute_rt.sampling.image_run import steps_of

_KEPT = 64
"""Most prompts whose judgement is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The resources of one runtime; `Runtime.open` assembles them, and tests pass fakes."""

    families: Mapping[str, Family]
    """Families by name; the router reads text states of the first. None if no candidate has a bundle."""
    router_bundle: Bundle | None = None
    """Holds the engines of the router: one of the families' bundles, or a pool; None without a router."""
    pool: tuple[Candidate, ...]
    """Candidates of all families, and those without a bundle, in the order of the quality estimate."""
    stated_ms: Mapping[str, float | None] = field(default_factory=dict)
    """Milliseconds of an image of the candidates without a bundle, as far as known."""
    engines: EngineSet
    costs: CostModel
    quality: QualityEstimator
    router_calls: tuple[Call, ...] = ()
    """Engine runs that the router needs per prompt, besides the text encoder's."""
    init_images: bool = False
    """Whether the engines for initial images are loaded before the first request."""
    states_source: StatesSource | None = None
    """Where the router's text states come from; None if it reads none."""
    clock: Clock
    setup: Mapping[str, str]
    """Backend, provider, precision and target of the engines, and their threads if chosen, as errors carry them."""
    fallback: str | None = None
    """Reason why ONNX Runtime on the CPU is used instead of what was asked for, with the fix; None if there was no fallback."""
    choice: BackendChoice | None = None
    """What `auto` has chosen, and why; None if the backend was named."""
    assumes: str | None = None
    """How the condition in which costs were measured differs from the present one; None if it does not."""
    versions: Mapping[str, str]
    """Versions of the libraries that make the images, by name."""
    store: Path = Path()
    """Directory of the engines."""
    upgrade: Upgrade | None = None
    """The background build; None if nothing had to be built."""
    negatives: Encodings = field(default_factory=Encodings)
    judgements: dict[tuple[str, bool], Judgement] = field(default_factory=dict)
    """Of the last prompts."""
    reading: Reading = field(default_factory=Reading)
    """Held while text encoders or the router run."""

    def family(self, candidate: Candidate) -> Family:
        """The candidate's family."""
        return self.families[candidate.family]

    @property
    def main_family(self) -> Family:
        """The first family, whose text states the router reads."""
        return next(iter(self.families.values()))

    @property
    def takes_turns(self) -> bool:
        """Whether prompts are judged one at a time and beside nothing else: engines may have to leave for those of the router."""
        return self.engines.limit is not None and (self.states_source is not None or bool(self.router_calls))

    @property
    def runnable(self) -> tuple[Candidate, ...]:
        """The candidates that have a bundle."""
        return tuple(each for each in self.pool if each.has_bundle)

    def bundle(self, engine: str) -> Bundle:
        """The bundle, or the pool's folder, that holds the graph of an engine."""
        family = self.families.get(EngineName.parse(engine).family)
        if family is None and self.router_bundle is not None:
            return self.router_bundle
        return self.main_family.bundle if family is None else family.bundle

    def candidates(self, request: Request) -> tuple[Candidate, ...]:
        """The candidates that a request allows; some may turn out to be unable to serve it.

        Raises ConfigError for an unknown name, and if none can begin with the request's initial image.
        """
        found = self.pool if request.candidate is None else (find_candidate(self.pool, request.candidate),)
        strength = request.used_strength
        if strength is None:
            return found
        beginning = [each for each in found if each.has_bundle and self.family(each).begins_with_images(each)]
        if not beginning:
            names = ", ".join(dict.fromkeys(each.family or each.name for each in found))
            raise ConfigError("init_image", request.source, f"None: {names} cannot begin with an image")
        if not any(steps_of(each.num_inference_steps, strength) for each in beginning):
            most = max(beginning, key=lambda each: each.num_inference_steps)
            least = 1 / most.num_inference_steps
            raise ConfigError("strength", strength, f"{least:.3g} or more, for one of {most.num_inference_steps} steps of {most.name}")
        return found

    def calls(self, candidate: Candidate, request: Request) -> tuple[Call, ...]:
        """Every engine run that the request needs with this candidate, in order; it depends on the encodings kept so far.

        Raises PromptError for a text that is far too long, or has a wrong syntax.
        """
        if not candidate.has_bundle:
            return ()
        family = self.family(candidate)
        size = family.size(request)
        plan = family.plan(candidate, size, request.scheduler, request.used_strength)
        texts = family.texts(request, plan)
        runs = max((self._encoder_runs(family, encoder, call, texts) for encoder, call in plan.encoders.items()), default=1)
        calls = family.calls(candidate, size, request.count, runs, texts.chunks, request.scheduler, request.used_strength)
        return (*self.routing_calls(calls), *calls)

    def _encoder_runs(self, family: Family, encoder: str, call: Call, texts: Texts) -> int:
        """Chunks that the text encoder has to read: the prompt's, and those others that are not kept."""
        tokenizer = str(family.bundle.components[encoder].tokenizer)
        keys = {(call.engine, chunk_key(chunk)) for chunk in texts.kept_chunks(tokenizer)}
        return len(texts.prompt[tokenizer]) + sum(key not in self.negatives for key in keys)

    def routing_calls(self, calls: Iterable[Call] = ()) -> tuple[Call, ...]:
        """The engine runs of the router, with the text encoder's unless it is among a candidate's `calls` anyway."""
        source = self.states_source
        if source is None or any(call.engine == source.call.engine for call in calls):
            return self.router_calls
        return (*self.router_calls, source.call)

    def missing(self, calls: Iterable[Call]) -> tuple[str, ...]:
        """Names of the engines in `calls` that are not resident, in order."""
        return tuple(dict.fromkeys(call.engine for call in calls if self.engines.find(call.engine) is None))

    def scheduler_title(self, candidate: Candidate, scheduler: str | None) -> str:
        """What the candidate's images are sampled with; empty if it has no bundle. scheduler: the request's."""
        return self.family(candidate).tables.config(candidate.scheduler, scheduler).title if candidate.has_bundle else ""

    def loads(self, calls: Sequence[Call], count: int) -> tuple[str, ...]:
        """Names of the engines that will be loaded for `count` images, in order; with a limit of memory, some of them perhaps twice."""
        limit = self.engines.limit
        if limit is None:
            return self.missing(calls)
        return tuple(limit.plan_loads(self.engines.resident(), find_phases(calls, count), self.extra_bytes(calls)))

    def find_larger_limit(self, calls: Sequence[Call], count: int) -> int | None:
        """The limit of memory in bytes with which these engines could be loaded; None if the present one is enough."""
        limit = self.engines.limit
        least = 0 if limit is None else limit.least_bytes(find_phases(calls, count), self.extra_bytes(calls))
        return None if limit is None or least <= limit.max_bytes else least

    def extra_bytes(self, calls: Sequence[Call]) -> int:
        """Memory that images larger than usual need beside their engines, if there is a limit."""
        limit, precision = self.engines.limit, self.setup["precision"]
        return 0 if limit is None else limit.extra_bytes(calls, lambda name: estimate_bytes(self.bundle(name), name, precision))

    def memory_bytes(self, engine: str) -> int:
        """Memory of an engine: as measured, else what it says of itself if it is resident, else estimated by its weights."""
        measured, found = self.costs.memory_bytes(engine)[0], self.engines.find(engine)
        if measured is not None:
            return measured
        return estimate_bytes(self.bundle(engine), engine, self.setup["precision"]) if found is None else int(found.resident_bytes)

    def words(self, request: Request) -> str:
        """What the router reads of the prompt: without its syntax, as the first family has it."""
        return self.main_family.words(request) if self.families else request.prompt

    def judge(self, request: Request, engines: Lease) -> Judgement:
        """The expected quality of each candidate. The caller holds `reading`. Raises PromptError as `calls`."""
        return self.keep_judgement(request, lambda: self.quality.judge(self.words(request), self.text_states(request, engines)))

    def keep_judgement(self, request: Request, judge: Callable[[], Judgement]) -> Judgement:
        """What was judged of this prompt lately, else what `judge` returns: the next request often differs in seed or budget alone."""
        key = request.prompt, request.plain_prompt
        found = self.judgements.get(key)
        if found is None:
            if len(self.judgements) >= _KEPT:
                self.judgements.clear()
            found = self.judgements[key] = judge()
        return found

    def text_states(self, request: Request, engines: Lease) -> TextStates | None:
        """The prompt's states for the router, from one run of the text encoder; None if the router reads none."""
        family, source = self.main_family, self.states_source
        if source is None:
            return None
        tokens = family.tokenize(request.prompt, [source.tokenizer], is_plain=request.plain_prompt)
        first = {name: each.chunk(0) for name, each in tokens.items()}
        tensors = family.encode(source.encoder, first, engines.get(source.call.engine))
        return text_states(family.bundle, source, tensors, first, family.tokenizers)

    def located(self, error: EngineError) -> EngineError:
        """The error with the bundle and setup of its engine filled in."""
        name = error.engine or ""
        engine = self.engines.find(name)
        setup = {**self.setup, **({} if engine is None or engine.key is None else engine.key.setup)}
        is_known = self.families and name.count("/") > 1
        return error.located(setup=setup, bundle=self.bundle(name).root if is_known else self.main_family.bundle.root)

    def swap_in(self) -> None:
        """Use the engines that the background build finished, if there are any, for requests that start from now on."""
        if self.upgrade is None:
            return
        finished = self.upgrade.take()
        if not finished:
            return
        with self.reading.held():
            self.engines.replace({name: engine for name, (engine, _) in finished.items()})
            for name, (_, cost) in finished.items():
                self.costs.replace(name, cost)
                self.negatives.forget(name)
            self.judgements.clear()
