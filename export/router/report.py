"""The evaluation as one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from costroute_rt.export.router import plot, share_plot, trend_section
from costroute_rt.export.router.curve import Interval
from costroute_rt.export.router.drawing import themed
from costroute_rt.export.router.evaluate import Evaluation
from costroute_rt.export.router.page import escape, page, section, table
from costroute_rt.judgement import LEAST_TRUST

_ROUTERS = {"router": "this router", "length": "longer prompts get more time", "average": "averages only"}
_FIGURES = {
    "area": ("area above random mixing", "mean height above random mixing of single candidates"),
    "qnc": ("QNC", "least cost that equals the best single candidate, relative to its cost"),
    "gain": ("gain", "over the best single candidate, without a cost limit"),
    "gain_at_mean_cost": ("gain at mean cost", "over the candidate of mean cost, at its cost"),
    "over_hull_at_mean_cost": ("gain over random mixing", "over random mixing at that cost"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An example image."""

    prompt: str
    candidate: str
    ms: float
    png: bytes


def write_page(
    found: Evaluation, *, title: str, reason: str, examples: Sequence[Example] = (), sections: Sequence[tuple[str, str, str]] = ()
) -> str:
    """The HTML page with its images and plots. Raises BackendError without matplotlib.

    reason: what the router routes on, and why. examples: images of prompts, the cheapest routes first. sections: further ones, which come
    first: title, sentence and SVG.
    """
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="quiet">{escape(reason)}</p>', _tiles(found)]
    parts += [section(name, about, themed(svg)) for name, about, svg in sections]
    if found.curves:
        about = "Each point of a line is the average over prompts at one trade-off. Shaded and vertical: 95 % intervals over prompts."
        parts.append(section("Quality and time", about, themed(plot.plot_curves(found))))
        parts.append(section("Where the prompt decides", _decides(found), themed(plot.plot_decides(found))))
        about = "Share of the prompts that each candidate gets, from the least to the greatest mean cost."
        parts.append(section("Shares of candidates", about, themed(share_plot.plot_shares(found)), _shares_table(found)))
    else:
        share = f"{100 * found.decided[0]['share']:.0f} % of the prompts get another candidate than the best one by averages"
        parts.append(section("Quality and time", f"The labels have no costs, so routes are compared by quality only: {share}."))
    parts.append(_complexity(found))
    parts.append(section("Choices against the trend", trend_section.ABOUT, trend_section.write(found.against_trend)))
    parts.append(section("Figures", "With 95 % intervals over prompts.", _figures_table(found)))
    parts.append(section("Single candidates", "", _candidates_table(found)))
    parts.append(section("Calibration", "Predictions on the line are exact.", _calibration(found)))
    parts.append(_reliability(found))
    if found.categories:
        about = "Gain by kind of prompt, and mean time per kind if all prompts share the time of the mean-cost candidate."
        parts.append(section("Kinds of prompt", about, themed(plot.plot_categories(found.categories))))
    if examples:
        parts.append(section("Examples", "Prompts and their images at the middle of the range of mean costs.", _images(examples)))
    return page(title, parts)


def show_interval(found: Interval | None, *, signed: bool = True) -> str:
    """`+0.031 [+0.022, +0.040]`, or a dash if there is none."""
    if found is None or found.value != found.value:
        return "–"
    value, low, high = (_number(each, signed) for each in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def _number(value: float, signed: bool = True) -> str:
    if value == float("inf"):
        return "never"
    rounded = round(value, 3) + 0.0  # no -0.000
    return f"{rounded:+.3f}" if signed else f"{rounded:.3f}"


def _found(found: Interval | None, *, signed: bool) -> str:
    """A cell with the interval under the figure."""
    value, _, interval = show_interval(found, signed=signed).partition(" ")
    return f"{value}\n{interval}"


def show_value(value: float | None, *, signed: bool = True) -> str:
    """`+0.031`, or a dash if there is none."""
    return "–" if value is None or value != value else _number(value, signed)


def _plain(value: float | None, decimals: int = 3) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"


def _tiles(found: Evaluation) -> str:
    router = found.figures["router"]
    tiles = [(_number(router["gain"].value), "gain over the best single candidate", _ends(router["gain"]))]
    if found.has_cost:
        qnc = router["qnc"].value
        tiles.insert(0, (_number(router["area"].value), "mean height above random mixing", _ends(router["area"])))
        tiles.insert(1, ("never" if qnc == float("inf") else f"{100 * qnc:.0f} %", "of the best candidate's cost at equal quality", "QNC"))
    if found.reachable_share is not None:
        tiles.append((f"{100 * found.reachable_share:.0f} %", "of the upper bound", "an oracle on other seeds"))
    if found.router_ms is not None:
        tiles.append((f"{found.router_ms:.3f} ms", "to judge a prompt", "without the text encoder"))
    cells = "".join(
        f'<div class="tile"><b>{escape(value)}</b>{escape(what)}<small>{escape(more)}</small></div>' for value, what, more in tiles
    )
    missing = f", {found.incomplete} of them with missing labels" if found.incomplete else ""
    return f'<p class="quiet">{found.prompts} prompts{missing}; mean trust {found.mean_trust:.2f}</p><div class="tiles">{cells}</div>'


def _ends(found: Interval) -> str:
    return f"{_number(found.low)} to {_number(found.high)}"


def _figures_table(found: Evaluation) -> str:
    routers = [name for name in _ROUTERS if name in found.figures]
    names = [name for name in _FIGURES if any(name in found.figures[router] for router in routers)]
    rows = [[_FIGURES[name][0], *(_found(found.figures[router].get(name), signed=name != "qnc") for router in routers)] for name in names]
    header = ["", *(_ROUTERS[router] for router in routers)]
    if found.oracle is not None:
        header.append("oracle on other seeds")
        for row, name in zip(rows, names, strict=True):
            row.append(show_value(found.oracle.get(name), signed=name != "qnc"))
    notes = "; ".join(f"{_FIGURES[name][0]}: {_FIGURES[name][1]}" for name in names)
    return table(header, rows) + f'<p class="quiet note">{escape(notes)}.</p>'


def _candidates_table(found: Evaluation) -> str:
    times = {row["name"]: row["predicted_ms"] for row in found.ms}
    rows = [
        [
            row["name"],
            _plain(row["cost_ms"], 0),
            _plain(times.get(row["name"]), 0),
            f"{_plain(row['quality'])}\n{_plain(row['quality_interval'][0])} to {_plain(row['quality_interval'][1])}",
            _plain(row["predicted"]),
            f"{100 * row['best_for']:.0f} %",
        ]
        for row in sorted(found.candidates, key=lambda row: row["cost_ms"] or 0.0)
    ]
    return table(["", "ms", "ms predicted here", "quality", "quality predicted", "share without a cost limit"], rows)


def _shares_table(found: Evaluation) -> str:
    order = sorted(found.candidates, key=lambda row: row["cost_ms"])
    used = [row["name"] for row in order if any(level["candidates"][row["name"]]["share"] for level in found.shares)]
    rows = [[name, *(_words(level["candidates"][name]["words"]) for level in found.shares)] for name in used]
    header = ["", *(f"{level['cost_ms']:.0f} ms" for level in found.shares)]
    return '<p class="quiet note">Mean number of words in the prompts of each candidate:</p>' + table(header, rows)


def _words(count: float | None) -> str:
    return "–" if count is None else f"{count:.1f}"


def _calibration(found: Evaluation) -> str:
    about = found.calibration
    rows = [
        ["slope (ideally 1)", _plain(about["slope"], 2)],
        ["slope within candidates and prompts", _plain(about["slope_by_prompt"], 2)],
        ["bias", _number(about["bias"])],
        ["root mean square error", _plain(about["rms_error"])],
        ["part due to noise of labels", _plain(about["label_noise"])],
    ]
    return f'<div class="pair"><div>{themed(plot.plot_calibration(found))}</div><div>{table(["", ""], rows)}</div></div>'


def _decides(found: Evaluation) -> str:
    ranges = ", ".join(f"{low:.0f} to {high:.0f} ms" for low, high in found.sure_ms)
    sure = f"surely above averages from {ranges} (shaded)" if ranges else "nowhere surely above averages"
    most = max(found.decided, key=lambda row: float(row["share"]))
    share = f"at most {100 * most['share']:.0f} % of the prompts, at {most['cost_ms']:.0f} ms"
    about = "Above: quality less that of averages mixed by chance at the same mean time, on the same prompts; 95 % intervals at each."
    return f"The router is {sure}. {about} Below: prompts that get another candidate than averages choose at the same trade-off: {share}."


def _complexity(found: Evaluation) -> str:
    kinds, cost_ms = found.complexity["kinds"], {row["name"]: row["cost_ms"] for row in found.candidates}
    by = "category of the table" if found.complexity["by"] == "category" else "number of words, in thirds"
    spent = "" if found.complexity["cost_ms"] is None else f", where routing takes {found.complexity['cost_ms']:.0f} ms on average"
    rows = [
        [row["name"], str(row["prompts"]), f"{row['words']:.1f}", _plain(row["cost_ms"], 0), *_most_chosen(row["candidates"])]
        for row in kinds[: share_plot.MOST_KINDS]
    ]
    svg = share_plot.plot_complexity({row["name"]: row["candidates"] for row in kinds}, cost_ms)
    header = ["", "prompts", "mean words", "mean ms", "most often", "share"]
    about = f"Share of the prompts of each kind ({by}) that each candidate gets{spent}."
    about += f" The first {share_plot.MOST_KINDS} of {len(kinds)} kinds." if len(kinds) > share_plot.MOST_KINDS else ""
    return section("Candidates by complexity", about, themed(svg), table(header, rows))


def _most_chosen(shares: Mapping[str, float]) -> tuple[str, str]:
    name = max(shares, key=lambda each: shares[each])
    return name, f"{100 * shares[name]:.0f} %"


def _reliability(found: Evaluation) -> str:
    """Whether intervals hold what they promise."""
    levels = found.calibration["coverage"]
    if not levels:
        return section(
            "Intervals", "This router has no intervals: it was fitted to too few labels, or by an older version. Fit it again to get them."
        )
    rows = [
        [f"{100 * row['level']:.0f} %", *(_covered(row, part) for part in ("", "_near", "_far")), f"± {row['half_width']:.3f}"]
        for row in levels
    ]
    header = ["promised", "labels inside", f"near, {levels[0]['near']:,} labels", f"far, {levels[0]['far']:,} labels", "mean half-width"]
    about = "Share of the labels inside the intervals of the router. Points on the line are right; below it, intervals are too narrow."
    about += f" Near: prompts with a trust of {LEAST_TRUST:g} or more."
    return section(
        "Intervals", about, f'<div class="pair"><div>{themed(plot.plot_coverage(levels))}</div><div>{table(header, rows)}</div></div>'
    )


def _covered(row: Mapping[str, Any], part: str) -> str:
    share, ends = row[f"covered{part}"], row[f"covered{part}_interval"]
    return "–" if share is None else f"{100 * share:.1f} %\n{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"


def _images(examples: Sequence[Example]) -> str:
    """The cheap half beside the expensive half; together if all were routed to one candidate."""
    if len({each.candidate for each in examples}) == 1:
        return _gallery(f"All routed to {examples[0].candidate}", examples)
    middle = len(examples) // 2
    halves = ("Routed to a cheap candidate", examples[:middle]), ("Routed to an expensive one", examples[middle:])
    return f'<div class="pair top">{"".join(_gallery(title, half) for title, half in halves if half)}</div>'


def _gallery(title: str, examples: Sequence[Example]) -> str:
    figures = "".join(
        f'<figure><img alt="{escape(each.prompt)}" src="data:image/png;base64,{base64.b64encode(each.png).decode("ascii")}">'
        f'<figcaption>{escape(each.prompt)}<br><span class="quiet">{escape(each.candidate)}, {each.ms:.0f} ms</span></figcaption></figure>'
        for each in examples
    )
    return f'<div><h3>{escape(title)}</h3><div class="images">{figures}</div></div>'
