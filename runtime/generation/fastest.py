"""Builds the engines that `backend="auto"` chooses between, and finds the fastest by whole images, once for a machine.

ONNX Runtime in float32 is the usual one; OpenVINO takes its place where it is complete, its images stay alike, and it is clearly faster: in
bfloat16 where the processor is faster in that, else in float32. Both make the same images in turns. Where other programs leave them too
little of the processor, plain times are luck: then the processor time is compared, which hardly depends on other programs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from statistics import geometric_mean, median

from costroute_rt.candidate import Candidate
from costroute_rt.engines.backends.registry import find_version
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.backends.spec import AUTO
from costroute_rt.engines.building.build import BuildReport, build_each
from costroute_rt.engines.building.lookup import names_to_build
from costroute_rt.engines.building.progress import Stage, Step, Tracker
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.store.fastest import Fastest, ImageTimes, keep_fastest, read_fastest
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BackendError, ConfigError, EngineError, StoreFullError
from costroute_rt.family.assembly import open_resources
from costroute_rt.family.auto_backend import (
    OTHER,
    USUAL,
    Chosen,
    choose_backend,
    chosen_of,
    is_large,
    is_open,
    make_key,
    other_setups,
    preferred_by_rule,
)
from costroute_rt.family.calls import pool_names
from costroute_rt.family.resources import Resources
from costroute_rt.generation.engine_gate import ImageReport, check_images
from costroute_rt.generation.queue import Device
from costroute_rt.generation.stream import Stream
from costroute_rt.request import Request

Clock = Callable[[], float]
Clocks = tuple[Clock, Clock]
CLOCKS: Clocks = (time.perf_counter, time.process_time)
"""Seconds, and seconds in which processors worked for this process."""
Follow = Callable[[str], AbstractContextManager[Tracker]]
"""Gives the tracker of one piece of work; called with the engines that are built, or with what is done instead."""
NamesOf = Callable[[Setup], list[tuple[Bundle, list[str]]]]
"""The names of the engines to build for a setup, by bundle."""

CLEARLY_FASTER = 0.9
"""Share of the usual engines' time that others may take to replace them: times of a busy machine differ by several percent."""
_PROMPT = "a red house by a lake with snowy mountains behind"
_TURNS, _MORE_TURNS, _MORE_S = 5, 15, 3.0
"""Images of a candidate by each set of engines, and most images, until so many seconds have passed."""
_FEW_TURNS, _LONG_S = 2, 20.0
"""Images where those of a candidate take longer."""
_MOST_CANDIDATES = 4
_STARVED = 0.9
"""Processor time in the time of an image: an image computes without a pause, so that less means waiting for other programs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetReport:
    """What happened to one set of engines."""

    setup: Setup
    built: list[tuple[Bundle, list[BuildReport]]]
    images: list[ImageReport]

    @property
    def problem(self) -> str | None:
        """Why the whole set must not be used; None if it may."""
        for report in (each for _, reports in self.built for each in reports):
            if report.quarantined is not None:
                return f"{report.engine} is quarantined: {report.quarantined}"
        for image in self.images:
            if image.quarantined is not None:
                return f"{image.engine} is quarantined: {image.quarantined}"
            if image.skipped is not None and self.setup.precision != "float32":
                return f"the images of {image.engine} were not compared: {image.skipped}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The chosen engines, and everything that was built."""

    chosen: Chosen
    sets: Sequence[SetReport]


@contextmanager
def unwatched(what: str) -> Iterator[Tracker]:
    """No progress."""
    yield Tracker()


def build_fastest(
    pool: Pool,
    store: Store,
    *,
    precision: str = AUTO,
    threads: int | None = None,
    names_of: NamesOf | None = None,
    is_whole: bool = True,
    force: bool = False,
    follow: Follow = unwatched,
) -> Comparison:
    """Build, check and compare the sets of engines that `auto` chooses between with these options, and keep the result in the store.

    names_of: the engines to build of each set; None means those that the candidates need. is_whole: whether these are all that they need;
    else nothing is compared. force: build and compare again.
    Raises as `build_each` does; what engines other than the usual ones raise is the reason why they are left out.
    """
    build = partial(_build_set, pool, store, names_of or partial(_every_name, pool), is_whole, force, follow)
    alone = find_alone(pool, store, precision, threads)
    if alone is not None:
        sets = [build(alone)]
        return Comparison(chosen=choose_backend(pool, store, precision=precision, threads=threads), sets=sets)
    first, *rest = setups_to_compare(precision, threads)
    usual = build(first)
    others, left_out, is_lasting = _build_others(build, rest)
    sets, key = [usual, *others], make_key(pool, precision)
    found = None if force and is_whole else read_fastest(store.root, key)
    if found is None and not is_whole:
        return Comparison(chosen=choose_backend(pool, store, precision=precision, threads=threads), sets=sets)
    if found is None:
        good = [each.setup for each in others if each.problem is None]
        found = _compare(pool, store, usual.setup, good[0] if good else None, left_out, follow)
        if is_lasting:
            keep_fastest(store, key, found)
    return Comparison(chosen=chosen_of(found, threads), sets=sets)


def find_alone(pool: Pool, store: Store, precision: str, threads: int | None) -> Setup | None:
    """The only engines to build for `auto`; None if there are several to compare."""
    if is_open(AUTO, precision) and find_version(OTHER) is not None:
        return preferred_by_rule(precision, threads)[0] if is_large(pool) else None
    return choose_backend(pool, store, precision=precision, threads=threads).setup


def setups_to_compare(precision: str, threads: int | None) -> list[Setup]:
    """The usual engines, then what may take their place; of the latter one set is built, the first that can be used."""
    return [Setup.of(USUAL, threads=threads), *other_setups(precision, threads)]


def can_run(setup: Setup) -> bool:
    """Whether this machine can run such engines, as far as their library says."""
    try:
        return setup.obstacle() is None
    except ConfigError:  # the processor has no such precision
        return False


def _build_set(pool: Pool, store: Store, names_of: NamesOf, is_whole: bool, force: bool, follow: Follow, setup: Setup) -> SetReport:
    with follow(str(setup)) as tracker:
        built = [(bundle, build_each(bundle, store, own, setup, force=force, tracker=tracker)) for bundle, own in names_of(setup)]
        bundles = pool.bundles.values() if is_whole else ()
        images = [image for bundle in bundles for image in check_images(bundle, store, setup, tracker.check)]
    return SetReport(setup=setup, built=built, images=images)


def _every_name(pool: Pool, setup: Setup) -> list[tuple[Bundle, list[str]]]:
    return [(pool.holders[name], names_to_build(pool.holders[name], names, setup)) for name, names in pool_names(pool).items()]


def _build_others(build: Callable[[Setup], SetReport], setups: Sequence[Setup]) -> tuple[list[SetReport], dict[str, str], bool]:
    """The sets until one may be used, why others must not be used, and whether that lasts: a damaged library may be installed again."""
    sets, left_out, is_lasting = list[SetReport](), dict[str, str](), True
    for setup in setups:
        try:
            if (obstacle := setup.obstacle()) is not None:
                raise obstacle
            done = build(setup)
        except StoreFullError:
            raise
        except (BackendError, ConfigError, EngineError) as error:
            left_out[str(setup)] = str(error)
            is_lasting = is_lasting and not isinstance(error, BackendError)
            continue
        sets.append(done)
        if done.problem is None:
            break
        left_out[str(setup)] = done.problem
    return sets, left_out, is_lasting


def _compare(pool: Pool, store: Store, usual: Setup, other: Setup | None, left_out: dict[str, str], follow: Follow) -> Fastest:
    """The faster of two sets of engines; other: None if there is only one."""
    image_ms: ImageTimes = {}
    chosen, reason = usual, "no other engines can be used"
    if other is not None:
        with follow("comparing") as tracker:
            times = measure_images(pool, store, (usual, other), tracker)
        image_ms = times.median_ms((usual, other))
        chosen = other if times.ratio <= CLEARLY_FASTER else usual
        reason = times.describe(chosen, usual, other)
    return Fastest(
        backend=chosen.backend,
        provider=chosen.provider,
        precision=chosen.precision,
        reason=reason,
        image_ms=image_ms,
        left_out=left_out,
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        condition=str(chosen.condition()),
    )


@dataclass(frozen=True, slots=True)
class ImageRace:
    """Images of two sets of engines, made in turns."""

    turns: Mapping[str, Sequence[Sequence[tuple[float, float]]]]
    """By candidate, for each turn: time and processor time of the image by each set, in milliseconds."""

    @property
    def is_starved(self) -> bool:
        """Whether other programs left the images too little of the processor."""
        images = [image for turns in self.turns.values() for turn in turns for image in turn]
        return median(processor_ms / ms for ms, processor_ms in images) < _STARVED

    @property
    def ratio(self) -> float:
        """How many times as long the second set takes: the mean over candidates of the median over turns."""
        kind = int(self.is_starved)
        return geometric_mean(median(other[kind] / usual[kind] for usual, other in turns) for turns in self.turns.values())

    def median_ms(self, setups: Sequence[Setup]) -> dict[str, dict[str, float]]:
        """Median times by set and candidate, of what was compared."""
        kind = int(self.is_starved)
        return {
            str(setup): {name: round(median(turn[index][kind] for turn in turns), 3) for name, turns in self.turns.items()}
            for index, setup in enumerate(setups)
        }

    def describe(self, chosen: Setup, usual: Setup, other: Setup) -> str:
        """Why that set was chosen."""
        images = "its images" if chosen == other else f"images by {other}"
        if self.is_starved:
            taking = f"{images} take {self.ratio:.2f} times the processor time of those by {usual} (measured beside busy programs)"
        else:
            taking = f"{images} take {self.ratio:.2f} times as long as those by {usual}"
        return f"fastest here: {taking}" if chosen == other else f"nothing else is clearly faster here: {taking}"


def measure_images(pool: Pool, store: Store, setups: tuple[Setup, Setup], tracker: Tracker, clocks: Clocks = CLOCKS) -> ImageRace:
    """Images of a few candidates by both sets of engines, which must exist."""
    tracker.plan(Stage.MEASURE, [Step(stage=Stage.MEASURE, engine=None)])
    tracker.start(Stage.MEASURE, None)
    with ExitStack() as stack:
        opened = [stack.enter_context(_opened(pool, store, setup, clocks[0])) for setup in setups]
        names = _choose_candidates(opened)
        turns = {}
        for index, name in enumerate(names):
            makers = [partial(_make_image, resources, name) for resources in opened]
            turns[name] = list(_take_turns(makers, partial(_tick, tracker, index, len(names)), clocks))
    return ImageRace(turns)


@contextmanager
def _opened(pool: Pool, store: Store, setup: Setup, clock: Clock) -> Iterator[Resources]:
    resources = open_resources(
        pool, clock, home=store.root, extra_stores=store.extras, backend=setup.backend, provider=setup.provider, precision=setup.precision,
        threads=setup.threads, allow_fallback=False, build=False, background_build=False, preload=False, init_images=False,
        max_memory_bytes=None, tracker=Tracker(),
    )  # fmt: skip
    try:
        yield resources
    finally:
        resources.engines.close()


def _choose_candidates(opened: Sequence[Resources]) -> list[str]:
    """Of each family the candidates with the fewest and the most steps, among those that all can run."""
    runnable = [each for each in opened[0].runnable if all(each in other.runnable for other in opened[1:])]
    chosen: list[Candidate] = []
    for family in dict.fromkeys(each.family for each in runnable):
        own = sorted((each for each in runnable if each.family == family), key=lambda each: each.num_inference_steps)
        chosen += [own[0], own[-1]]
    return list(dict.fromkeys(each.name for each in chosen))[:_MOST_CANDIDATES]


def _make_image(resources: Resources, candidate: str) -> None:
    def nothing(*_: object) -> None:
        pass

    device, request = Device(resources.clock), Request(prompt=_PROMPT, candidate=candidate)
    Stream(
        resources,
        device,
        request,
        seed=0,
        cancel=None,
        max_waiting=None,
        check=nothing,
        check_running=nothing,
        on_end=nothing,
    ).run(None)


def _tick(tracker: Tracker, index: int, total: int, share: float) -> None:
    tracker.tick((index + min(share, 1.0)) / total)


def _take_turns(makers: Sequence[Callable[[], None]], tick: Callable[[float], None], clocks: Clocks) -> Iterator[list[tuple[float, float]]]:
    """Time and processor time of one image by each in milliseconds, again and again; the first ones, which load engines, do not count."""
    for make in makers:
        tick(0.0)
        make()
    begin = clocks[0]()
    for turn in range(_MORE_TURNS):
        spent_s = clocks[0]() - begin
        if spent_s > (_LONG_S if turn < _TURNS else _MORE_S) and turn >= _FEW_TURNS:
            break
        images = []
        for make in makers:
            tick(turn / _TURNS)
            start_s, start_processor_s = (clock() for clock in clocks)
            make()
            images.append(((clocks[0]() - start_s) * 1e3, (clocks[1]() - start_processor_s) * 1e3))
        yield images
