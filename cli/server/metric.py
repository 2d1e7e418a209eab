"""Metrics in the text format of Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

BUCKETS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0)
TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """What happened since the server began."""

    def __init__(self) -> None:
        self._requests: Counter[Labels] = Counter()
        self._works: Counter[Labels] = Counter()
        self._deadlines: Counter[Labels] = Counter()
        self._images = 0
        self._seconds: Counter[int] = Counter()
        self._seconds_sum = 0.0

    def count_request(self, route: str, status: int) -> None:
        """An answer; route: the pattern of its path, so that there are few."""
        self._requests[("route", route), ("status", str(status))] += 1

    def count_work(self, outcome: str) -> None:
        """A work ended; outcome: done, or the code of its problem."""
        self._works[(("outcome", outcome),)] += 1

    def count_images(self, images: int, seconds: float, met: bool | None) -> None:
        """A work ended with images."""
        self._images += images
        self._seconds[bisect_left(BUCKETS_S, seconds)] += 1
        self._seconds_sum += seconds
        if met is not None:
            self._deadlines[(("met", str(met).lower()),)] += 1

    def render(self, gauges: Iterable[tuple[str, str, float]]) -> str:
        """The text; gauges: name, help and value of what is measured now."""
        lines = list[str]()
        for name, text, counts in (
            ("requests_total", "Answers by route and status.", self._requests),
            ("works_total", "Requests for images that ended, by outcome.", self._works),
            ("deadlines_total", "Images with a budget, by whether it was kept.", self._deadlines),
        ):
            lines += _head(name, text, "counter")
            lines += [f"costroute_{name}{_labels(labels)} {count}" for labels, count in sorted(counts.items())]
        lines += [*_head("images_total", "Images made.", "counter"), f"costroute_images_total {self._images}"]
        lines += self._histogram()
        for name, text, value in gauges:
            lines += [*_head(name, text, "gauge"), f"costroute_{name} {value:g}"]
        return "\n".join(lines) + "\n"

    def _histogram(self) -> list[str]:
        name, total = "request_seconds", 0
        lines = _head(name, "Time from the arrival of a request to its images.", "histogram")
        for index, bound in enumerate([*map(str, BUCKETS_S), "+Inf"]):
            total += self._seconds[index]
            lines.append(f'costroute_{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"costroute_{name}_sum {self._seconds_sum:.6f}", f"costroute_{name}_count {total}"]


def _head(name: str, text: str, kind: str) -> list[str]:
    return [f"# HELP costroute_{name} {text}", f"# TYPE costroute_{name} {kind}"]


def _labels(labels: Labels) -> str:
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in labels)
    return f"{{{pairs}}}" if pairs else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
