"""Pieces of the HTML page of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as escape_html

from costroute_rt.plain_text import printable

_CSS = """
:root{color-scheme:light dark;--back:#f5f7fa;--paper:#fff;--ink:#1d2433;--quiet:#636c7e;--line:#e4e8ef;--accent:#2563eb;--gold:#b45309
;--teal:#0f766e;--violet:#7c3aed;--orange:#c2410c;--pale:#9dc0f0;--others:#b6bdca}
@media(prefers-color-scheme:dark){:root{--back:#12161f;--paper:#1a202c;--ink:#e6eaf2;--quiet:#a3adbf;--line:#303949;--accent:#6ea0ff;--gold:#f0a840
;--teal:#3fc1b0;--violet:#b794f6;--orange:#fb8a50;--pale:#3b5b8f;--others:#667085}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:880px;margin:0 auto;padding:40px 20px 64px}
h1{font-size:28px;margin:0 0 4px;letter-spacing:-.02em}h2{font-size:17px;margin:0 0 4px}
p{margin:0 0 12px}.quiet{color:var(--quiet)}
section{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:22px 24px;margin-top:18px;overflow-x:auto}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin-top:22px}
.tile{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:16px 18px}
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
h3.name{margin-top:22px}
.against{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:12px}
.against>div{border:1px solid var(--line);border-radius:8px;padding:10px 12px;font-size:13px;line-height:1.4;overflow-wrap:anywhere}
.against table{margin-top:8px;font-size:12px}.against th{overflow-wrap:normal}
.against th,.against td{padding:3px 0 3px 8px}.against td:first-child{white-space:normal}
"""


def escape(text: str) -> str:
    """Text of anybody for HTML: it makes no element, and no character that is invisible or turns the direction of writing."""
    return escape_html(printable(text, keep_lines=True))


def page(title: str, parts: Sequence[str]) -> str:
    """A self-contained page; parts: HTML."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{_CSS}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><main>{"".join(parts)}</main></body></html>\n'


def section(title: str, about: str, *content: str) -> str:
    """A titled box; title, about: text. content: HTML."""
    intro = f'<p class="quiet">{escape(about)}</p>' if about else ""
    return f"<section><h2>{escape(title)}</h2>{intro}{''.join(content)}</section>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts; a second line in a cell is set in small type."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    first, _, second = text.partition("\n")
    return escape(first) + (f"<small>{escape(second)}</small>" if second else "")
