"""The works of a server: those that run, and those that ended and can still be asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from costroute_rt.cli.server.picture import Gallery
from costroute_rt.cli.server.settings import Limits
from costroute_rt.cli.server.work import State, Work


class Board:
    """Works by number. Few are kept after their end, and not for long."""

    def __init__(self, clock: Callable[[], float], limits: Limits) -> None:
        self._clock, self._limits = clock, limits
        self._works: dict[str, Work] = {}
        self._ended: dict[str, float] = {}
        """Those that are kept, and until when; the oldest first."""
        self.gallery = Gallery(clock, most_bytes=limits.kept_bytes, keep_s=limits.keep_s)
        self.on_add: list[Callable[[Work], None]] = []
        """Called with each new work."""

    def add(self, work: Work) -> None:
        self._works[work.number] = work
        for call in list(self.on_add):
            call(work)

    def keep(self, work: Work) -> None:
        """It ended, and can be asked for until it expires; its pictures get names."""
        work.picture_names = tuple(self.gallery.add(picture) for picture in work.pictures)
        self._ended[work.number] = self._clock() + self._limits.keep_s
        self.expire()

    def discard(self, work: Work) -> None:
        """Forget it, with its pictures."""
        self._works.pop(work.number, None)
        self._ended.pop(work.number, None)
        for name in work.picture_names:
            self.gallery.discard(name)

    def find(self, number: str) -> Work | None:
        self.expire()
        return self._works.get(number)

    def active(self) -> list[Work]:
        """Those that have not ended, in the order of their arrival."""
        return [work for work in self._works.values() if not work.state.is_over]

    def of_client(self, client: str) -> list[Work]:
        """The works of one client that are still known."""
        self.expire()
        return [work for work in self._works.values() if work.order.client == client]

    def __iter__(self) -> Iterator[Work]:
        self.expire()
        return iter(list(self._works.values()))

    def count(self, state: State) -> int:
        return sum(1 for work in self._works.values() if work.state is state)

    def expire(self) -> None:
        """Forget what was kept long enough, or is too much."""
        self.gallery.expire()
        now = self._clock()
        while self._ended:
            number, until = next(iter(self._ended.items()))
            if until > now and len(self._ended) <= self._limits.kept_jobs:
                return
            self.discard(self._works[number])
