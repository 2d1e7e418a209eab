"""The values of options that several commands share: which engines, and what kind of image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from costroute_rt.cli.command import profile
from costroute_rt.cli.failure import say

if TYPE_CHECKING:
    from costroute_rt.cli.progress import OpeningLine
    from costroute_rt.engines.backends.setup import Setup
    from costroute_rt.engines.bundle.bundle import Bundle
    from costroute_rt.request import RequestOptions
    from costroute_rt.result import Result, StepEvent
    from costroute_rt.route import Route
    from costroute_rt.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """Which bundle, and what runs it: --bundle, --backend, --provider, --precision, --threads, --allow-fallback."""

    bundle: str | None
    """Directory of the bundle; None means the shipped one."""
    backend: str
    provider: str
    precision: str
    threads: int | None
    """None means one for each physical core that this process may use."""
    allow_fallback: bool

    def open_bundle(self, *, verify: bool = True) -> Bundle:
        return open_bundle(self.bundle, verify=verify)

    def setup(self, target: str = "") -> Setup:
        from costroute_rt.engines.backends.setup import Setup

        return Setup.of(self.backend, self.provider, self.precision, self.threads, target=target, allow_fallback=self.allow_fallback)

    def open_runtime(self, line: OpeningLine, *, build: bool = True, preload: bool = True) -> Runtime:
        """The runtime; what it assumes because of how its engines were measured is printed. line: shows how far the opening is."""
        from costroute_rt import Runtime

        with line as progress:
            runtime = Runtime.open(
                self.bundle,
                backend=self.backend,
                provider=self.provider,
                precision=self.precision,
                threads=self.threads,
                allow_fallback=self.allow_fallback,
                build=build,
                preload=preload,
                progress=progress,
            )
        if runtime.assumes is not None:
            say(f"note: {runtime.assumes} ({self._profile_command(runtime)} measures again)")
        return runtime

    def _profile_command(self, runtime: Runtime) -> str:
        """The command that measures the engines of this runtime as they run now."""
        from costroute_rt.engines.backends.setup import Setup

        setup = self.setup() if runtime.fallback is None else Setup(threads=self.threads)
        asked = {"backend": setup.backend, "provider": setup.provider, "precision": setup.precision}
        return profile(asked if self.threads is None else {**asked, "threads": str(self.threads)}, self.bundle)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageChoice:
    """What decides the candidate and the image, besides prompt and seed; fields as `Runtime.generate` has them."""

    max_ms: float | None
    or_fastest: bool
    candidate: str | None
    lam: float
    tolerance: float
    count: int
    negative_prompt: str | None
    height: int | None
    width: int | None
    plain_prompt: bool
    scheduler: str | None = None

    def options(self, seed: int | None = None) -> RequestOptions:
        """The same choices as the runtime takes them."""
        return {
            "max_ms": self.max_ms, "or_fastest": self.or_fastest, "candidate": self.candidate, "lam": self.lam, "tolerance": self.tolerance,
            "count": self.count, "negative_prompt": self.negative_prompt, "height": self.height, "width": self.width, "seed": seed,
            "plain_prompt": self.plain_prompt, "scheduler": self.scheduler,
        }  # fmt: skip

    def route(self, runtime: Runtime, prompt: str) -> Route:
        return runtime.route(prompt, **self.options())

    def plan(self, runtime: Runtime, routes: Sequence[Route], total_ms: float, *, or_fastest: bool) -> list[Route]:
        """One budget for all of these prompts."""
        return runtime.plan(
            routes, total_ms=total_ms, or_fastest=or_fastest,
            count=self.count, negative_prompt=self.negative_prompt, height=self.height, width=self.width,
            plain_prompt=self.plain_prompt, scheduler=self.scheduler,
        )  # fmt: skip

    def generate(self, runtime: Runtime, prompt: str, seed: int, on_step: Callable[[StepEvent], None] | None) -> Result:
        return runtime.generate(prompt, on_step=on_step, **self.options(seed))


def open_bundle(path: str | None, *, verify: bool = True) -> Bundle:
    """The bundle at `path`, or the shipped one."""
    from costroute_rt import Bundle, shipped_bundle

    return Bundle.open(path or shipped_bundle(), verify=verify)


def choose_names(bundle: Bundle, setup: Setup, graphs: Sequence[str] = (), size: tuple[int, int] | None = None) -> list[str]:
    """Full names of the engines to work on: of these graphs, such as base/guided_step, else all that the candidates need.

    size: height and width that the engines are built for; None means any size, with some backends also engines of the usual size.
    """
    from costroute_rt.engines.building.lookup import names_to_build
    from costroute_rt.engines.bundle.size import with_size
    from costroute_rt.family.calls import engine_names

    names = [_full_name(bundle, graph) for graph in dict.fromkeys(graphs)] or engine_names(bundle)
    if size is not None:
        return with_size(bundle, names, size)
    return names if graphs else names_to_build(bundle, names, setup)


def _full_name(bundle: Bundle, graph: str) -> str:
    from costroute_rt.engines.bundle.name import find_graph

    return str(find_graph(bundle, graph if graph.startswith(f"{bundle.family}/") else f"{bundle.family}/{graph}"))
