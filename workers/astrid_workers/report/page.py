"""A page of HTML that stands alone: pictures inside, no script, no network, readable by everyone.

Owns markup and style; never measures and never draws.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing with the words for who cannot see it, and the caption for who can."""

    #: SVG markup of `drawing`, or a PNG's bytes.
    drawing: str | bytes
    alt: str
    caption: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a caption; the first column names the row."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with paragraphs, pictures and tables, in that order."""

    heading: str
    paragraphs: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --line: #d0d7de; --soft: #f6f8fa;
--accent: #0b5cad } @media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --line: #30363d; --soft: #161b22; --accent: #6cb6ff }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 4rem; color: var(--ink); background:
var(--paper);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem
} p.lead { font-size: 1.1rem; margin: 0 0 1.5rem } dl.facts { display: grid; grid-template-columns:
repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 0 } dl.facts div { border: 1px solid var(--line);
border-radius: .5rem; padding: .6rem .8rem; background: var(--soft) } dl.facts dt { font-size: .8rem }
dl.facts dd { margin: 0; font-size: 1.25rem; font-weight: 600;
  font-variant-numeric: tabular-nums }
figure { margin: 1rem 0 }
figure svg { display: block; max-width: 100%; height: auto }
figure img { max-width: 100%; height: auto; background: #fff; border-radius: .35rem
} figcaption { font-size: .9rem; margin-top: .3rem } div.scroll { overflow-x: auto } table { border-collapse:
collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .5rem 0 1rem } caption { text-align:
left; font-weight: 600; padding: .3rem 0 } th, td { text-align: left; padding: .25rem .75rem .25rem 0;
border-bottom: 1px solid var(--line); vertical-align: top } a { color: var(--accent) } a:focus-visible {
outline: 2px solid var(--accent) } footer { margin-top: 3rem; font-size: .85rem } @media print { body {
max-width: none } h2 { break-after: avoid } figure, table { break-inside: avoid } }
"""


def render_page(
    title: str, lead: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section], footer: str = ""
) -> str:
    """The whole page: a title, one sentence, the most important numbers, then the sections."""
    cards = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    body = "".join(_section(section) for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f'<main><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>'
        f'<dl class="facts">{cards}</dl>{body}</main>'
        f"<footer>{escape(footer)}</footer></body></html>\n"
    )


def _section(section: Section) -> str:
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in section.paragraphs)
    pictures = "".join(_picture(picture) for picture in section.pictures)
    tables = "".join(_table(table) for table in section.tables)
    return f"<section><h2>{escape(section.heading)}</h2>{paragraphs}{pictures}{tables}</section>"


def _picture(picture: Picture) -> str:
    alt, caption = escape(picture.alt), f"<figcaption>{escape(picture.caption)}</figcaption>"
    if isinstance(picture.drawing, str):
        return f'<figure><div role="img" aria-label="{alt}">{picture.drawing}</div>{caption}</figure>'
    data = base64.b64encode(picture.drawing).decode("ascii")
    return f'<figure><img src="data:image/png;base64,{data}" alt="{alt}">{caption}</figure>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{escape(cell)}</th>' if i == 0 else f"<td>{escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><caption>{escape(table.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
