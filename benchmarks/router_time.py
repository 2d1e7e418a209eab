"""Time and memory of a router for one prompt: `python -m benchmarks.router time`.

Ten candidates and random labels of generated captions. Every router is fitted, saved, and loaded by a separate process with one thread,
which judges prompts one by one: encoding (text states are given, words are hashed), reduction, estimate, trust and nearest prompts. A
second table says where the time goes. The transformer, alone and in the mean of three estimators that ships, runs on ONNX Runtime; it is
included where torch is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.process import run_process
from benchmarks.router_parts import time_parts
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, log, median_figure, run_scenario
from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.export.postcard.captions import captions
from costroute_rt.export.router.transformer import save_router
from costroute_rt.judgement import LEVELS
from costroute_rt.routing.array import Float32Array
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.knn import Knn
from costroute_rt.routing.estimator.linear import Linear
from costroute_rt.routing.estimator.mean import Mean
from costroute_rt.routing.estimator.protocol import Estimator
from costroute_rt.routing.familiarity import Familiarity
from costroute_rt.routing.prompt_encoder import HashedEncoder, PromptEncoder, StatesEncoder, TextStates
from costroute_rt.routing.prompt_tag import tag_prompts
from costroute_rt.routing.reduction import Reduction
from costroute_rt.routing.reliability import Reliability
from costroute_rt.routing.router import POOL_FIELDS, Router
from costroute_rt.routing.shrinkage import Shrinkage

CANDIDATES, TOKENS, STATES_WIDTH = 10, 77, 192
LABELLED, MORE, MANY, WIDTH, MANY_WIDTH = 1500, 5000, 100_000, 256, 128
"""Numbers of labelled prompts and of features per prompt; 256 features is what `fit-router` keeps."""
CALLS, MANY_CALLS, QUICK_CALLS, WARM_UP = 300, 100, 20, 10
NETWORK_PROMPTS = 100
KINDS = ("average", "knn", "linear", "mean")
MEANS = {"mean": ("knn", "linear"), "mean of three": ("knn", "linear", "transformer")}
TARGETS = {"states": Target(high=0.3), "hashed": Target(high=1.0)}
MORE_TARGET, MANY_TARGET = Target(high=0.5), Target(high=10.0)
PARTS_TABLE = "where the time of a prompt goes"
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "BLIS")} | {"VECLIB_MAXIMUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Case:
    """One router to measure."""

    kind: str
    encoder: str
    prompts: int = LABELLED
    width: int = WIDTH

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.encoder}, {self.prompts:,} x {self.width}"

    @property
    def target(self) -> Target | None:
        """None where there is no target."""
        if self.prompts == LABELLED:
            return TARGETS[self.encoder]
        if self.prompts == MORE:
            return MORE_TARGET
        return MANY_TARGET if (self.kind, self.width) == ("knn", MANY_WIDTH) else None


CASES = [
    *(Case(kind, encoder) for encoder in TARGETS for kind in KINDS),
    *([Case("transformer", "states"), Case("mean of three", "states")] if find_spec("torch") else []),
    Case("mean", "hashed", MORE),
    *(Case(kind, "states", MANY, MANY_WIDTH) for kind in ("knn", "mean")),
    Case("knn", "states", MANY, WIDTH),
]


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario per router."""
    cases = [case for case in CASES if case.prompts == LABELLED] if args.quick else CASES
    return [run_scenario(make_scenario(case, quick=args.quick), partial(measure, case)) for case in cases]


def make_scenario(case: Case, *, quick: bool) -> Scenario:
    settings = {"candidates": CANDIDATES, "encoder": case.encoder, "labelled": case.prompts, "width": case.width, "threads": 1}
    calls = QUICK_CALLS if quick else MANY_CALLS if case.prompts == MANY else CALLS
    targets = {} if case.target is None else {"time per prompt": case.target}
    return Scenario(name=case.name, settings=settings, warm_up=WARM_UP, repeats=calls, targets=targets)


def measure(case: Case, scenario: Scenario) -> Measurement:
    """Fits and saves a router; a new process loads it and judges prompts."""
    with tempfile.TemporaryDirectory() as folder:
        save_router(make_router(case), Path(folder))
        command = [sys.executable, "-m", "benchmarks.router_time", folder, str(scenario.repeats)]
        report = json.loads(run_process(command, {**os.environ, **ONE_THREAD}).stdout)
        file_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())
    figures = [
        median_figure("time per prompt", report["ms"], "ms"),
        Figure(name="CPU time per prompt", value=float(np.median(report["cpu_ms"])), unit="ms"),
        *(median_figure(part, [1000 * ms for ms in values], "us", table=PARTS_TABLE) for part, values in report["parts_ms"].items()),
        Figure(name="load time", value=report["load_s"], unit="s"),
        Figure(name="arrays", value=report["array_bytes"] / 1e6, unit="MB"),
        Figure(name="files", value=file_bytes / 1e6, unit="MB"),
    ]
    if report["growth_bytes"] is not None:
        figures.append(Figure(name="memory growth", value=report["growth_bytes"] / 1e6, unit="MB"))
    return Measurement(figures=figures)


def make_router(case: Case) -> Router:
    """A router fitted to random labels."""
    log(f"  fitting to {case.prompts:,} prompts")
    rng = np.random.default_rng(0)
    texts = [each.text for each in islice(captions("router-time"), LABELLED)]
    prompts = tuple(f"{texts[index % LABELLED]} {index // LABELLED or ''}".strip() for index in range(case.prompts))
    encoder: PromptEncoder = StatesEncoder(STATES_WIDTH) if case.encoder == "states" else HashedEncoder()
    sample = encoder.encode(texts, random_states(rng, LABELLED) if encoder.needs_states else None)
    reduction = Reduction.fit(sample, case.width)
    features = np.resize(reduction.apply(sample), (case.prompts, reduction.width)).astype(np.float16).astype(np.float32)
    if case.prompts > LABELLED:  # so that all prompts differ
        features += rng.normal(scale=0.01, size=features.shape).astype(np.float32)
    mean, variance = rng.random((case.prompts, CANDIDATES)), np.full((case.prompts, CANDIDATES), 0.01)
    row = dict.fromkeys(POOL_FIELDS, "x") | {"guidance_scale": 1.0}
    return Router(
        pool=tuple({**row, "name": f"candidate-{index}", "num_inference_steps": index + 1} for index in range(CANDIDATES)),
        encoder=encoder,
        reduction=reduction,
        estimator=fit(case.kind, features, mean, variance),
        average=Average.fit(mean, variance),
        prompts=prompts,
        features=features,
        near=0.5,
        far=0.75,
        reason="random labels",
        shrinkage=Shrinkage(0.9, 0.4),
        familiarity=Familiarity(tag_prompts(prompts), 2.0, 4.0),
        reliability=make_reliability(),
    )


def make_reliability() -> Reliability:
    """Intervals of any width."""
    near = np.tile(np.array([LEVELS]).T, CANDIDATES)
    return Reliability(near, 2 * near, np.full(CANDIDATES, 0.5), np.ones((CANDIDATES, CANDIDATES)))


def fit(kind: str, features: Float32Array, mean: np.ndarray, variance: np.ndarray) -> Estimator:
    if kind in MEANS:
        return Mean(tuple(fit(member, features, mean, variance) for member in MEANS[kind]))
    makers: dict[str, Callable[[], Estimator]] = {
        "average": lambda: Average.fit(mean, variance),
        "knn": lambda: Knn.fit(features, mean, variance),
        "linear": lambda: Linear.fit(features, mean, variance, alpha=1.0),
        "transformer": lambda: fit_network(mean[:NETWORK_PROMPTS], variance[:NETWORK_PROMPTS]),
    }
    return makers[kind]()


def fit_network(mean: np.ndarray, variance: np.ndarray) -> Estimator:
    """A transformer, fitted to few prompts, since its estimates do not matter here."""
    from costroute_rt.export.router.transformer import fit_transformer

    return fit_transformer(random_states(np.random.default_rng(0), len(mean)), mean, variance)


def random_states(rng: np.random.Generator, count: int) -> TextStates:
    """Random text states of prompts with 4 to 40 tokens."""
    states = rng.normal(size=(count, TOKENS, STATES_WIDTH)).astype(np.float32)
    return TextStates(states, rng.integers(4, 40, count))


def time_router(folder: Path, calls: int) -> dict[str, object]:
    """What the separate process does: milliseconds of each call (elapsed and CPU time of the thread) and of its parts, and memory.

    The parts are those of a second judgement of the same prompts, so that the clocks around them are no part of the first.
    """
    prompts = [each.text for each in islice(captions("router-time-asked"), calls + WARM_UP)]
    rng = np.random.default_rng(1)
    states = [random_states(rng, 1) for _ in prompts]
    before, started = peak_bytes(), time.perf_counter()
    router = Router.load(folder, open_engine=cache(partial(open_network, folder)))
    load_s = time.perf_counter() - started
    judgements = [partial(router.judge, prompt, own if router.needs_states else None) for prompt, own in zip(prompts, states, strict=True)]
    times, cpu = [], []
    for judge in judgements:
        started, cpu_started = time.perf_counter(), time.thread_time()
        judge()
        times.append(1000 * (time.perf_counter() - started))
        cpu.append(1000 * (time.thread_time() - cpu_started))
    after = peak_bytes()
    growth = None if before is None or after is None else after - before
    parts = {part: values[WARM_UP:] for part, values in time_parts(judgements).items()}
    times, cpu = times[WARM_UP:], cpu[WARM_UP:]
    facts = {"load_s": load_s, "array_bytes": array_bytes(router), "growth_bytes": growth}
    return {"ms": times, "cpu_ms": cpu, "parts_ms": parts, **facts}


def open_network(folder: Path, component: str, graph: str) -> Engine:
    """Builds and opens an engine from a graph that was saved with the router."""
    backend, spec, target = get_backend("onnxruntime"), BuildSpec(threads=1), folder / component
    target.mkdir()
    backend.build(folder / f"{component}.onnx", target, spec)
    return backend.open(target, spec)


def array_bytes(router: Router) -> int:
    """Bytes of all arrays that the router holds; shared arrays count once."""
    parts: list[np.ndarray] = [router.features, *router.average.arrays().values(), *router.estimator.arrays().values()]
    parts += [] if router.reduction is None else router.reduction.arrays().values()
    return sum({id(array): array.nbytes for array in parts}.values())


def peak_bytes() -> int | None:
    """Peak memory of this process from /proc; None on other systems (getrusage of a new process includes its parent's peak)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def main(argv: Sequence[str] | None = None) -> int:
    folder, calls = sys.argv[1:] if argv is None else argv
    print(json.dumps(time_router(Path(folder), int(calls))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
