"""How long a router takes to judge one prompt, and the memory it holds: `python -m benchmarks.router time`.

Ten candidates and random labels of drawn captions. Every router is fitted, saved, and loaded again in a process of its own with one
thread, which judges prompts one by one: encoding (text states are given, words are hashed), reduction, estimate, trust, nearest prompts.
The transformer, alone and in the mean of three that the shipped router is, runs on ONNX Runtime and is fitted where torch is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
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

from benchmarks.scenario import Figure, Measured, Outcome, Scenario, Target, attempt, say, spread
from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.export.postcard.captions import captions
from costroute_rt.export.router.transformer import save_router
from costroute_rt.routing.estimator import Average, Estimator, Knn, Linear, Mean
from costroute_rt.routing.prompt_encoder import Float32Array, HashedEncoder, PromptEncoder, StatesEncoder, TextStates
from costroute_rt.routing.reduction import Reduction
from costroute_rt.routing.router import POOL_FIELDS, Router

CANDIDATES, TOKENS, STATES_WIDTH = 10, 77, 192
LABELLED, MANY, WIDTH, MANY_WIDTH = 1500, 100_000, 256, 128
"""Labelled prompts, and numbers kept of each; 256 is what `fit-router` keeps."""
CALLS, MANY_CALLS, QUICK_CALLS, WARM_UP = 300, 100, 20, 10
NETWORK_PROMPTS = 100
KINDS = ("average", "knn", "linear", "mean")
MEANS = {"mean": ("knn", "linear"), "mean of three": ("knn", "linear", "transformer")}
TARGETS = {"states": Target(high=0.3), "hashed": Target(high=1.0)}
MANY_TARGET = Target(high=10.0)
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
        """None for what nobody was promised."""
        if self.prompts == LABELLED:
            return TARGETS[self.encoder]
        return MANY_TARGET if (self.kind, self.width) == ("knn", MANY_WIDTH) else None


CASES = [
    *(Case(kind, encoder) for encoder in TARGETS for kind in KINDS),
    *([Case("transformer", "states"), Case("mean of three", "states")] if find_spec("torch") else []),
    *(Case(kind, "states", MANY, MANY_WIDTH) for kind in ("knn", "mean")),
    Case("knn", "states", MANY, WIDTH),
]


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario for each router."""
    cases = [case for case in CASES if case.prompts == LABELLED] if args.quick else CASES
    return [attempt(plan(case, quick=args.quick), partial(measure, case)) for case in cases]


def plan(case: Case, *, quick: bool) -> Scenario:
    settings = {"candidates": CANDIDATES, "encoder": case.encoder, "labelled": case.prompts, "width": case.width, "threads": 1}
    calls = QUICK_CALLS if quick else CALLS if case.prompts == LABELLED else MANY_CALLS
    targets = {} if case.target is None else {"judging": case.target}
    return Scenario(name=case.name, settings=settings, warm_up=WARM_UP, repeats=calls, targets=targets)


def measure(case: Case, scenario: Scenario) -> Measured:
    """Fits, saves, and has another process load and judge."""
    with tempfile.TemporaryDirectory() as folder:
        save_router(make_router(case), Path(folder))
        command = [sys.executable, "-m", "benchmarks.router_time", folder, str(scenario.repeats)]
        done = subprocess.run(command, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True)
        file_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {(done.stderr.strip() or 'nothing on stderr').splitlines()[-1]}")
    found = json.loads(done.stdout)
    figures = [
        spread("judging", found["ms"], "ms"),
        Figure(name="of it CPU", value=float(np.median(found["cpu_ms"])), unit="ms"),
        Figure(name="loading", value=found["load_s"], unit="s"),
        Figure(name="arrays", value=found["array_bytes"] / 1e6, unit="MB"),
        Figure(name="file", value=file_bytes / 1e6, unit="MB"),
    ]
    if found["growth_bytes"] is not None:
        figures.append(Figure(name="memory", value=found["growth_bytes"] / 1e6, unit="MB"))
    return Measured(figures=figures)


def make_router(case: Case) -> Router:
    """Fitted to random labels."""
    say(f"  fitting to {case.prompts:,} prompts")
    rng = np.random.default_rng(0)
    texts = [each.text for each in islice(captions("router-time"), LABELLED)]
    prompts = tuple(f"{texts[index % LABELLED]} {index // LABELLED or ''}".strip() for index in range(case.prompts))
    encoder: PromptEncoder = StatesEncoder(STATES_WIDTH) if case.encoder == "states" else HashedEncoder()
    sample = encoder.encode(texts, random_states(rng, LABELLED) if encoder.needs_states else None)
    reduction = Reduction.fit(sample, case.width)
    features = np.resize(reduction.apply(sample), (case.prompts, reduction.width)).astype(np.float16).astype(np.float32)
    if case.prompts > LABELLED:  # so that no two are the same
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
        routes_on="prompt",
        reason="random labels",
    )


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
    """A transformer; to few prompts, as what it says is of no interest here."""
    from costroute_rt.export.router.transformer import fit_transformer

    return fit_transformer(random_states(np.random.default_rng(0), len(mean)), mean, variance)


def random_states(rng: np.random.Generator, count: int) -> TextStates:
    """Of prompts of 4 to 40 tokens."""
    states = rng.normal(size=(count, TOKENS, STATES_WIDTH)).astype(np.float32)
    return TextStates(states, rng.integers(4, 40, count))


def judge(folder: Path, calls: int) -> dict[str, object]:
    """What the process of its own does: milliseconds of each call by the clock and of this thread's CPU time, and memory."""
    asked = [each.text for each in islice(captions("router-time-asked"), calls + WARM_UP)]
    rng = np.random.default_rng(1)
    states = random_states(rng, 1)
    before, started = peak_bytes(), time.perf_counter()
    router = Router.load(folder, open_engine=cache(partial(open_network, folder)))
    load_s = time.perf_counter() - started
    times, cpu = [], []
    for prompt in asked:
        given = TextStates(rng.normal(size=states.states.shape).astype(np.float32), states.lengths) if router.needs_states else None
        started, cpu_started = time.perf_counter(), time.thread_time()
        router.judge(prompt, given)
        times.append(1000 * (time.perf_counter() - started))
        cpu.append(1000 * (time.thread_time() - cpu_started))
    after = peak_bytes()
    growth = None if before is None or after is None else after - before
    times, cpu = times[WARM_UP:], cpu[WARM_UP:]
    return {"ms": times, "cpu_ms": cpu, "load_s": load_s, "array_bytes": array_bytes(router), "growth_bytes": growth}


def open_network(folder: Path, component: str, graph: str) -> Engine:
    """An engine made of a graph that was saved with the router."""
    backend, spec, target = get_backend("onnxruntime"), BuildSpec(threads=1), folder / component
    target.mkdir()
    backend.build(folder / f"{component}.onnx", target, spec)
    return backend.open(target, spec)


def array_bytes(router: Router) -> int:
    """Of everything it keeps, what parts share counted once."""
    parts: list[np.ndarray] = [router.features, *router.average.arrays().values(), *router.estimator.arrays().values()]
    parts += [] if router.reduction is None else router.reduction.arrays().values()
    return sum({id(array): array.nbytes for array in parts}.values())


def peak_bytes() -> int | None:
    """The most memory this process has held; None where the system does not tell (of a new process, getrusage tells its parent's)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def main(argv: Sequence[str] | None = None) -> int:
    folder, calls = sys.argv[1:] if argv is None else argv
    print(json.dumps(judge(Path(folder), int(calls))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
