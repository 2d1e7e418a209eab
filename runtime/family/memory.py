"""A limit on the memory of this process: which engines leave before another one is loaded, and what that means for a request.

Engines are needed in phases: those of one phase are in use together, those of earlier phases may leave. An engine leaves only when room
is needed: first one that the request does not need any more, the one not used for longest; then one that it needs latest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from costroute_rt.call import Call, Stage
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.name import EngineName

Phases = tuple[tuple[str, ...], ...]
"""Names of the engines that are in use together, phase by phase."""
CONDITION = "/condition"
_GROWTH = {"float32": 2.0}
"""Memory of weights divided by their size on disk, by precision, 1 if not listed: they are stored in 16 bits."""
RESERVE_BYTES = 24 << 20
"""Kept free for arrays in host memory, and for what libraries allocate beside their engines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimit:
    """How much memory the process may have."""

    max_bytes: int
    base_bytes: int
    """Memory of the process without any engine."""
    size_of: Callable[[str], int]
    """Bytes of an engine by name, once it has run."""
    peak_of: Callable[[str], int]
    """Bytes that it takes while it is loaded and run for the first times."""
    used: Callable[[], int | None] = lambda: None
    """Memory of the process now; None if the system does not report it."""

    @property
    def budget_bytes(self) -> int:
        """What is left for engines."""
        return self.max_bytes - self.base_bytes - RESERVE_BYTES

    def least_bytes(self, phases: Phases, extra_bytes: int = 0) -> int:
        """The least limit with which these phases can run: each with its engines alone, of which the last is being loaded.

        extra_bytes: what images larger than usual need beside them.
        """
        return self.base_bytes + RESERVE_BYTES + extra_bytes + max((self._phase_bytes(names) for names in phases), default=0)

    def _phase_bytes(self, names: Sequence[str]) -> int:
        """The most bytes while the engines are loaded one after the other."""
        loaded, most = 0, 0
        for name in names:
            most = max(most, loaded + self.peak_of(name))
            loaded += self.size_of(name)
        return max(most, loaded)

    def plan_loads(self, resident: Iterable[str], phases: Phases, extra_bytes: int = 0) -> list[str]:
        """The engines that will be loaded, in order, an engine twice if it has to leave in between.

        resident: the engines that are open now, the one not used for longest first. The phases must fit (`least_bytes`).
        """
        state, loads = list(resident), list[str]()
        for index, names in enumerate(phases):
            later = [name for phase in phases[index + 1 :] for name in phase]
            for name in names:
                if name in state:
                    state.remove(name)
                else:
                    self._leave(state, name, names, later, extra_bytes)
                    loads.append(name)
                state.append(name)
        return loads

    def _leave(self, state: list[str], name: str, keep: Collection[str], later: Sequence[str], extra_bytes: int) -> None:
        while not self.has_room(state, name, extra_bytes):
            victim = choose_victim(state, keep, later)
            if victim is None:
                return
            state.remove(victim)

    def has_room(self, resident: Iterable[str], name: str, extra_bytes: int = 0) -> bool:
        """Whether an engine can be loaded beside these, by what is known of their sizes."""
        return sum(map(self.size_of, resident)) + self.peak_of(name) + extra_bytes <= self.budget_bytes

    def is_short(self, name: str, extra_bytes: int = 0) -> bool:
        """Whether loading an engine, and what is needed beside it, would exceed the limit, by what the process really has now."""
        used = self.used()
        return used is not None and used + self.peak_of(name) + extra_bytes > self.max_bytes

    def extra_bytes(self, calls: Iterable[Call], weights_of: Callable[[str], int]) -> int:
        """What images larger than usual need more than was measured: what is not weights grows with their area.

        weights_of: bytes of an engine's weights by name.
        """
        larger = [call for call in calls if call.area > 1]
        return max((int((call.area - 1) * max(self.size_of(call.engine) - weights_of(call.engine), 0)) for call in larger), default=0)


def choose_victim(resident: Sequence[str], keep: Collection[str], later: Sequence[str]) -> str | None:
    """The engine that leaves next; None if none may.

    resident: the one not used for longest first. keep: engines in use. later: engines that the request needs later, in order.
    """
    free = [name for name in resident if name not in keep]
    unneeded = [name for name in free if name not in later]
    if unneeded:
        return unneeded[0]
    return max(free, key=lambda name: later.index(name), default=None)


def find_phases(calls: Iterable[Call], count: int) -> Phases:
    """The phases of a request: routing, the initial image, text, denoising, decoding.

    With several images the last two alternate, and are one phase.
    """
    routing, image, text, steps, decode = (dict[str, None]() for _ in range(5))
    for call in calls:
        if call.stage is Stage.ROUTE:
            routing[call.engine] = None
        elif call.stage is Stage.ENCODE:
            image[call.engine] = None
        elif call.stage is Stage.DECODE:
            decode[call.engine] = None
        elif call.stage is Stage.DENOISE or call.engine.partition("@")[0].endswith(CONDITION):
            steps[call.engine] = None
        else:
            text[call.engine] = None
    last = ((*steps, *decode),) if count > 1 else (tuple(steps), tuple(decode))
    return tuple(filter(None, (tuple(routing), tuple(image), tuple(text), *last)))


def estimate_bytes(bundle: Bundle, engine: str, precision: str) -> int:
    """Memory of an engine that was not measured: that of its component's weights."""
    component = EngineName.parse(engine).component
    return int(_GROWTH.get(precision, 1.0) * bundle.weights_bytes(component)) if component in bundle.components else 0
