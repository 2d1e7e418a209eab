"""The values of options that several commands share: which engines, and what kind of image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from costroute_rt.cli.command import build_engines, profile
from costroute_rt.cli.failure import say

if TYPE_CHECKING:
    import threading

    from costroute_rt.cli.progress import OpeningLine
    from costroute_rt.engines.backends.setup import Setup
    from costroute_rt.engines.bundle.bundle import Bundle
    from costroute_rt.engines.bundle.pool import Pool
    from costroute_rt.engines.store.store import Store
    from costroute_rt.family.auto_backend import Chosen
    from costroute_rt.request import ImageLike, RequestOptions
    from costroute_rt.result import Result, StepEvent
    from costroute_rt.route import Route
    from costroute_rt.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """Which bundle or pool, which of its candidates, and what runs it: --bundle, --pool, --candidates, --backend, --threads ..."""

    bundle: str | None
    """Directory of the bundle; None means the shipped one, unless there is a pool."""
    pool: str | None = None
    candidates: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    max_memory: int | None = None
    """Bytes that the program may have; None means any number."""
    backend: str
    provider: str
    precision: str
    threads: int | None
    """None means one for each physical core that this process may use."""
    allow_fallback: bool

    def open_pool(self, *, verify: bool = True) -> Pool:
        """The pool, or the bundle as one, with the candidates that may be used; verify: hash all files."""
        return open_pool(self.bundle, self.pool, verify=verify, candidates=self.candidates, exclude=self.exclude, licenses=self.licenses)

    @property
    def is_open(self) -> bool:
        """Whether the backend is left to what is found to be fastest."""
        from costroute_rt.family.auto_backend import is_open

        return self.backend == "auto" and is_open(self.provider, self.precision)

    def choose(self, pool: Pool, store: Store, target: str = "") -> Chosen:
        """What runs the pool's engines, and why if that was left to `auto`."""
        from costroute_rt.family.auto_backend import choose_backend

        return choose_backend(
            pool, store, backend=self.backend, provider=self.provider, precision=self.precision, threads=self.threads, target=target,
            allow_fallback=self.allow_fallback,
        )  # fmt: skip

    def setup(self, pool: Pool, store: Store | None = None, target: str = "") -> Setup:
        """What runs the pool's engines."""
        from costroute_rt.engines.store.store import Store

        return self.choose(pool, store or Store.open(), target).setup

    def open_runtime(
        self,
        line: OpeningLine,
        *,
        build: bool = True,
        preload: bool = True,
        init_images: bool = False,
        max_waiting: int | None = None,
        cancel: threading.Event | None = None,
    ) -> Runtime:
        """The runtime; what it assumes because of how its engines were measured is printed. line: shows how far the opening is."""
        from costroute_rt import Runtime

        with line as progress:
            runtime = Runtime.open(
                self.bundle,
                pool=self.pool,
                candidates=self.candidates,
                exclude=self.exclude,
                licenses=self.licenses,
                max_memory_bytes=self.max_memory,
                backend=self.backend,
                provider=self.provider,
                precision=self.precision,
                threads=self.threads,
                allow_fallback=self.allow_fallback,
                build=build,
                preload=preload,
                init_images=init_images,
                max_waiting=max_waiting,
                progress=progress,
                cancel=cancel,
            )
        if runtime.choice is not None and runtime.choice.basis == "not_measured":
            say(f"note: runs on {runtime.choice} ({build_engines(None, self.bundle or self.pool)} compares them once)")
        if runtime.assumes is not None:
            threads = {} if self.threads is None else {"threads": str(self.threads)}
            command = profile({**runtime.setup, **threads}, self.bundle or self.pool)
            say(f"note: {runtime.assumes} ({command} measures again)")
        return runtime


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
    init_image: ImageLike | None = None
    strength: float | None = None
    mask: ImageLike | None = None

    def with_images(self) -> ImageChoice:
        """The same choices with the images read from their files, once for all; raises ConfigError."""
        from costroute_rt.request import Request

        checked = Request(prompt="a", init_image=self.init_image, strength=self.strength, mask=self.mask)
        return replace(self, init_image=checked.init_image, mask=checked.mask)

    def options(self, seed: int | None = None) -> RequestOptions:
        """The same choices as the runtime takes them."""
        return {
            "max_ms": self.max_ms, "or_fastest": self.or_fastest, "candidate": self.candidate, "lam": self.lam, "tolerance": self.tolerance,
            "count": self.count, "negative_prompt": self.negative_prompt, "height": self.height, "width": self.width, "seed": seed,
            "plain_prompt": self.plain_prompt, "scheduler": self.scheduler,
            "init_image": self.init_image, "strength": self.strength, "mask": self.mask,
        }  # fmt: skip

    def route(self, runtime: Runtime, prompt: str) -> Route:
        return runtime.route(prompt, **self.options())

    def plan(self, runtime: Runtime, routes: Sequence[Route], total_ms: float, *, or_fastest: bool) -> list[Route]:
        """One budget for all of these prompts."""
        return runtime.plan(
            routes, total_ms=total_ms, or_fastest=or_fastest,
            count=self.count, negative_prompt=self.negative_prompt, height=self.height, width=self.width,
            plain_prompt=self.plain_prompt, scheduler=self.scheduler,
            init_image=self.init_image, strength=self.strength, mask=self.mask,
        )  # fmt: skip

    def generate(self, runtime: Runtime, prompt: str, seed: int, on_step: Callable[[StepEvent], None] | None) -> Result:
        return runtime.generate(prompt, on_step=on_step, **self.options(seed))


def open_pool(
    bundle: str | None,
    pool: str | None,
    *,
    verify: bool = True,
    candidates: Sequence[str] = (),
    exclude: Sequence[str] = (),
    licenses: Sequence[str] = (),
) -> Pool:
    """The pool at `pool`, or the bundle at `bundle`, or the shipped one; verify: hash all files, and check what graphs and weights hold."""
    from costroute_rt.family.assembly import open_pool

    opened = open_pool(bundle, pool, candidates=candidates, exclude=exclude, licenses=licenses)
    if verify:
        for holder in opened.holders.values():
            holder.verify()
    return opened


def choose_names(
    pool: Pool, setup: Setup, graphs: Sequence[str] = (), size: tuple[int, int] | None = None, *, init_images: bool = False
) -> list[tuple[Bundle, list[str]]]:
    """Full names of the engines to work on: of these graphs, such as base/guided_step, else all that the candidates need; by bundle.

    Engines that several bundles of a pool have are named once. size: height and width that the engines are built for; None means any size,
    with some backends also engines of the usual size. init_images: also the engines that encode initial images.
    Raises ConfigError for a graph that no bundle has, or several.
    """
    from costroute_rt.engines.building.lookup import names_to_build
    from costroute_rt.engines.building.twin import find_twins
    from costroute_rt.engines.bundle.size import with_size
    from costroute_rt.family.calls import image_encoder_names, pool_names

    own = _named(pool, graphs) if graphs else pool_names(pool)
    if init_images:
        encoders = {name: image_encoder_names(bundle) for name, bundle in pool.bundles.items()}
        own = {name: list(dict.fromkeys([*own.get(name, ()), *encoders.get(name, ())])) for name in (*own, *encoders)}
    chosen = []
    for name, names in own.items():
        bundle = pool.holders[name]
        if size is not None:
            names = with_size(bundle, names, size) if name in pool.bundles else names
        elif not graphs:
            names = names_to_build(bundle, names, setup)
        chosen.append((bundle, names))
    twins = find_twins(pool.holders, [name for _, names in chosen for name in names], setup) if len(chosen) > 1 else {}
    return [(bundle, [name for name in names if name not in twins]) for bundle, names in chosen]


def _named(pool: Pool, graphs: Sequence[str]) -> dict[str, list[str]]:
    """The engines of these graphs, by bundle; a graph is named with its bundle if there are several."""
    from costroute_rt.error import ConfigError

    found: dict[str, list[str]] = {}
    for graph in dict.fromkeys(graphs):
        stated = graph.partition("/")[0]
        if stated not in pool.holders and len(pool.holders) > 1:
            raise ConfigError("graph", graph, f"BUNDLE/COMPONENT/GRAPH, with a bundle among {', '.join(pool.holders)}")
        name = stated if stated in pool.holders else next(iter(pool.holders))
        found.setdefault(name, []).append(_full_name(pool.holders[name], graph))
    return found


def _full_name(bundle: Bundle, graph: str) -> str:
    from costroute_rt.engines.bundle.name import find_graph

    return str(find_graph(bundle, graph if graph.startswith(f"{bundle.name}/") else f"{bundle.name}/{graph}"))
