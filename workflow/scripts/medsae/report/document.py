"""A document of headings, paragraphs, lists and tables, written as Markdown, HTML or RST.

Text may hold ``**bold**`` and nothing else; every other character is shown as it is.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

_BOLD = re.compile(r"\*\*(.+?)\*\*")


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 (the document) to 3."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of points."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table; the first ``n_text`` columns are text, the others numbers (set to the right)."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_text: int = 1


Block = Heading | Paragraph | Bullets | Table


def to_markdown(blocks: Sequence[Block]) -> str:
    """The document as GitHub-flavoured Markdown."""
    return "\n".join(_markdown(block) for block in blocks)


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}\n"
        case Paragraph(text):
            return f"{text}\n"
        case Bullets(items):
            return "".join(f"- {item}\n" for item in items)
        case Table(header, rows, n_text):
            rule = ["---" if index < n_text else "---:" for index in range(len(header))]
            lines = [header, tuple(rule), *rows]
            return "".join(
                "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n"
                for line in lines
            )


def to_rst(blocks: Sequence[Block]) -> str:
    """Paragraphs and lists as reStructuredText, for the front page of the Snakemake report."""
    parts = []
    for block in blocks:
        match block:
            case Paragraph(text):
                parts.append(_rst(text) + "\n")
            case Bullets(items):
                parts.append("".join(f"- {_rst(item)}\n" for item in items))
            case _:
                raise TypeError(f"{type(block).__name__} has no place on the front page")
    return "\n".join(parts)


def _rst(text: str) -> str:
    plain_and_bold = _BOLD.split(text)
    escaped = [re.sub(r"([\\`*_|<>])", r"\\\1", part) for part in plain_and_bold]
    return "".join(
        f"**{part}**" if index % 2 else part for index, part in enumerate(escaped) if part
    )


def to_html(blocks: Sequence[Block]) -> str:
    """The document as one self-contained HTML page."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "")
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{_inline(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{_inline(text)}</p>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
        case Table(header, rows, n_text):
            kinds = ["" if index < n_text else ' class="number"' for index in range(len(header))]
            head = _cells("th", header, kinds)
            lines = "\n".join(f"<tr>{_cells('td', row, kinds)}</tr>" for row in rows)
            body = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody>"
            return f'<div class="table"><table>\n{body}\n</table></div>'


def _cells(tag: str, cells: Sequence[str], kinds: Sequence[str]) -> str:
    return "".join(
        f"<{tag}{kind}>{_inline(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True)
    )


def _inline(text: str) -> str:
    return _BOLD.sub(r"<strong>\1</strong>", html.escape(text, quote=False))


_CSS = """
body { font: 15px/1.55 system-ui, "DejaVu Sans", sans-serif; color: #222; max-width: 62em;
  margin: 1.5em auto; padding: 0 1.5em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.25em; margin-top: 2em; } h3 { font-size: 1.05em; }
li { margin: .35em 0; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9em; margin: 1em 0; }
th, td { padding: .3em .7em; text-align: left; border-bottom: 1px solid #e4e4e4; }
th { border-bottom: 1.5px solid #888; vertical-align: bottom; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
"""
