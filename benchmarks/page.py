"""Where a page shows what was measured: between `<!-- <its marker> -->` and `<!-- end -->`."""

from __future__ import annotations

from pathlib import Path

from lowdata_cpt.core.io import write_text

END = "<!-- end -->"


def show(page: Path, marker: str, text: str) -> None:
    """Put `text` between the lines of a page's marker, such as benchmarks/results.json."""
    begin = f"<!-- {marker} -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    write_text(page, f"{before}{begin}\n{text}\n{END}{rest.partition(END)[2]}")


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Return a table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
