"""HTML building blocks of the report: escaping, tables, the page around them."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

STYLE = """
:root { color-scheme: light; --ink: #1d1f21; --muted: #666; --line: #dcdcdc; --soft: #f6f6f4; --link: #0b57a4; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 1.5rem 1.25rem 5rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .4rem; }
p, li { max-width: 78ch; }
a { color: var(--link); }
nav { position: sticky; top: 0; background: #fffffff2; padding: .5rem 0; border-bottom: 1px solid var(--line);
  display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font-size: .92rem; z-index: 2; }
h2, h3, tr, figure, details { scroll-margin-top: 3.5rem; }
.meta, figcaption, .note { color: var(--muted); font-size: .9rem; }
.answer { background: var(--soft); border-left: 4px solid #0072B2; padding: .8rem 1.1rem; margin: 1rem 0; }
.answer ul { margin: .4rem 0; padding-left: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .28rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { position: sticky; top: 0; background: #fff; font-weight: 600; white-space: nowrap; }
td.number { text-align: right; white-space: nowrap; }
tr:target td, details:target { background: #fff6d6; }
figure { margin: 1.4rem 0; } figure img { max-width: 100%; height: auto; display: block; }
figcaption { max-width: 90ch; margin-top: .4rem; }
summary { cursor: pointer; }
pre { background: var(--soft); padding: .7rem; overflow-x: auto; font-size: .8rem; }
.reproduced { color: #00704f; font-weight: 600; } .not-reproduced { color: #b34700; font-weight: 600; }
.inconclusive { color: #555; font-weight: 600; } .not-run { color: #888; }
input[type=search] { font: inherit; padding: .3rem .6rem; width: 24rem; max-width: 100%; border: 1px solid #bbb;
  border-radius: 4px; }
@media print { nav, input { display: none; } details > * { display: block; } }
"""
# Filters the rows of the table after it; the page reads in full without it.
SCRIPT = """
for (const box of document.querySelectorAll('input[type=search]')) {
  const rows = document.getElementById(box.dataset.table).tBodies[0].rows;
  box.addEventListener('input', () => {
    const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}
const open = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let node = target; node; node = node.parentElement) if (node.tagName === 'DETAILS') node.open = true;
  if (target) target.scrollIntoView();
};
window.addEventListener('hashchange', open);
open();
"""


def escape(text: object) -> str:
    """Escape text for HTML content and attributes."""
    return html.escape(str(text), quote=True)


def anchor(*parts: object) -> str:
    """Return an id that is safe in HTML and in a link."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(str(part) for part in parts))


def inline_markdown(text: str) -> str:
    """Turn a caption's `**bold**` and `` `code` `` into HTML; everything else is escaped."""
    safe = escape(text.strip())
    safe = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe, flags=re.S)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", safe)


def table(
    header: Sequence[str],
    rows: Iterable[tuple[str, Sequence[str]]],
    *,
    numbers: Sequence[int] = (),
    name: str = "",
) -> str:
    """Return a table; rows are (id or empty, cells that are HTML already)."""
    lines = [f'<div class="wide"><table{f" id={chr(34)}{escape(name)}{chr(34)}" if name else ""}><thead><tr>']
    lines += [f"<th>{escape(cell)}</th>" for cell in header]
    lines.append("</tr></thead><tbody>")
    for identifier, cells in rows:
        lines.append(f'<tr id="{escape(identifier)}">' if identifier else "<tr>")
        lines += [f'<td class="number">{c}</td>' if i in numbers else f"<td>{c}</td>" for i, c in enumerate(cells)]
        lines.append("</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


PHOTOGRAPHS = 120_000
"""A PNG of 256 colours above this many bytes shows photographs, or is drawn as densely."""
WIDEST = 960
"""Pixels; what is that large is shown no wider than this, so that a report of hundreds of cells can be sent by mail."""


def small_image(path: Path) -> bytes:
    """Return a PNG as a small WebP; the file itself stays as it is.

    Drawings keep 256 colours of their own without loss, sheets of photographs lose what the eye does not look for.
    """
    with Image.open(path) as image:
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.getchannel("A") if "A" in image.getbands() else None)
    drawing, small = flat.quantize(256), io.BytesIO()
    drawing.save(small, format="png")
    photographs, small = small.tell() > PHOTOGRAPHS, io.BytesIO()
    if photographs:
        flat.thumbnail((WIDEST, flat.height), Image.Resampling.LANCZOS)
        flat.save(small, format="webp", quality=50, method=6)
    else:
        drawing.convert("RGB").save(small, format="webp", lossless=True)
    return small.getvalue()


def picture(path: Path, caption: str, links: str) -> str:
    """Return a figure with the picture embedded."""
    data = base64.b64encode(small_image(path)).decode("ascii")
    name = escape(path.stem)
    return (
        f'<figure id="{anchor("figure", path.stem)}"><img alt="{name}" src="data:image/webp;base64,{data}">'
        f"<figcaption>{caption} <span>{links}</span></figcaption></figure>"
    )


def page(title: str, sections: Sequence[tuple[str, str, str]], lead: str) -> str:
    """Return the document; sections are (id, heading, HTML)."""
    links = "".join(f'<a href="#{identifier}">{escape(heading)}</a>' for identifier, heading, _ in sections)
    body = "\n".join(f'<h2 id="{identifier}">{escape(heading)}</h2>\n{text}' for identifier, heading, text in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n'
        f"<body><header><h1>{escape(title)}</h1>{lead}</header>\n<nav>{links}</nav>\n<main>{body}</main>\n"
        f"<script>{SCRIPT}</script></body></html>\n"
    )
