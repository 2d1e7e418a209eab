"""The evaluation as one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape as escape_html

from costroute_rt.export.router import plot
from costroute_rt.export.router.curve import Interval
from costroute_rt.export.router.evaluate import Evaluation
from costroute_rt.plain_text import printable

_ROUTERS = {"router": "this router", "length": "longer prompts get more time", "average": "averages only"}
_FIGURES = {
    "area": ("area above random mixing", "mean height above random mixing of single candidates"),
    "qnc": ("QNC", "least cost that equals the best single candidate, relative to its cost"),
    "gain": ("gain", "over the best single candidate, without a cost limit"),
    "gain_at_mean_cost": ("gain at mean cost", "over the candidate of mean cost, at its cost"),
    "over_hull_at_mean_cost": ("gain over random mixing", "over random mixing at that cost"),
}
_CSS = """
:root{color-scheme:light;--ink:#1d2433;--quiet:#6b7486;--line:#e4e8ef;--accent:#2563eb}
*{box-sizing:border-box}
body{margin:0;background:#f5f7fa;color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:880px;margin:0 auto;padding:40px 20px 64px}
h1{font-size:28px;margin:0 0 4px;letter-spacing:-.02em}h2{font-size:17px;margin:0 0 4px}
p{margin:0 0 12px}.quiet{color:var(--quiet)}
section{background:#fff;border:1px solid var(--line);border-radius:12px;padding:22px 24px;margin-top:18px;overflow-x:auto}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin-top:22px}
.tile{background:#fff;border:1px solid var(--line);border-radius:12px;padding:16px 18px}
.tile b{display:block;font-size:26px;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.tile small{color:var(--quiet);display:block;line-height:1.35}
svg{max-width:100%;height:auto;display:block}svg text{font-family:inherit!important}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:6px 0 6px 14px;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}th{color:var(--quiet);font-weight:500;white-space:normal;vertical-align:bottom}
td small{display:block;color:var(--quiet)}
.note{margin-top:12px}
.pair{display:flex;gap:24px;flex-wrap:wrap;align-items:center}.pair>*{flex:1 1 280px}
.pair.top{align-items:flex-start}
h3{font-size:14px;font-weight:600;margin:6px 0 12px}
.images{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:16px}
figure{margin:0}figure img{width:100%;border-radius:8px;display:block;image-rendering:auto}
figcaption{font-size:13px;line-height:1.4;margin-top:6px}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An example image."""

    prompt: str
    candidate: str
    ms: float
    png: bytes


def escape(text: str) -> str:
    """Text of anybody for HTML: it makes no element, and no character that is invisible or turns the direction of writing."""
    return escape_html(printable(text, keep_lines=True))


def write_page(
    found: Evaluation, *, title: str, reason: str, examples: Sequence[Example] = (), sections: Sequence[tuple[str, str, str]] = ()
) -> str:
    """The HTML page with its images and plots. Raises BackendError without matplotlib.

    reason: what the router routes on, and why. examples: images of prompts, the cheapest routes first. sections: further ones, which come
    first: title, sentence and SVG.
    """
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="quiet">{escape(reason)}</p>', _tiles(found)]
    parts += [_section(*each) for each in sections]
    if found.curves:
        about = "Each point of a line is the average over prompts at one trade-off. The blue area is the gain from reading the prompt."
        parts.append(_section("Quality and time", about, plot.plot_curves(found)))
        about = "Share of the prompts that each candidate gets, from the least to the greatest mean cost."
        parts.append(_section("Shares of candidates", about, plot.plot_shares(found), _shares_table(found)))
    else:
        parts.append(_section("Quality and time", "The labels have no costs, so routes are compared by quality only."))
    parts.append(_section("Figures", "With 95 % intervals over prompts.", _figures_table(found)))
    parts.append(_section("Single candidates", "", _candidates_table(found)))
    parts.append(_section("Calibration", "Predictions on the line are exact.", _calibration(found)))
    if found.categories:
        about = "Gain by kind of prompt, and mean time per kind if all prompts share the time of the mean-cost candidate."
        parts.append(_section("Kinds of prompt", about, plot.plot_categories(found.categories)))
    if examples:
        parts.append(_section("Examples", "Prompts and their images at the middle of the range of mean costs.", _images(examples)))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{_CSS}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><main>{"".join(parts)}</main></body></html>\n'


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


def _section(title: str, about: str, *content: str) -> str:
    intro = f'<p class="quiet">{escape(about)}</p>' if about else ""
    return f"<section><h2>{escape(title)}</h2>{intro}{''.join(content)}</section>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    """A second line is set in small type."""
    first, _, second = text.partition("\n")
    return escape(first) + (f"<small>{escape(second)}</small>" if second else "")


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
    return _table(header, rows) + f'<p class="quiet note">{escape(notes)}.</p>'


def _candidates_table(found: Evaluation) -> str:
    times = {row["name"]: row["predicted_ms"] for row in found.ms}
    rows = [
        [
            row["name"],
            _plain(row["cost_ms"], 0),
            _plain(times.get(row["name"]), 0),
            _plain(row["quality"]),
            _plain(row["predicted"]),
            f"{100 * row['best_for']:.0f} %",
        ]
        for row in sorted(found.candidates, key=lambda row: row["cost_ms"] or 0.0)
    ]
    return _table(["", "ms", "ms predicted here", "quality", "quality predicted", "share without a cost limit"], rows)


def _shares_table(found: Evaluation) -> str:
    order = sorted(found.candidates, key=lambda row: row["cost_ms"])
    rows = [[row["name"], *(_words(level["candidates"][row["name"]]["words"]) for level in found.shares)] for row in order]
    header = ["", *(f"{level['cost_ms']:.0f} ms" for level in found.shares)]
    return '<p class="quiet note">Mean number of words in the prompts of each candidate:</p>' + _table(header, rows)


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
    return f'<div class="pair"><div>{plot.plot_calibration(found)}</div><div>{_table(["", ""], rows)}</div></div>'


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
