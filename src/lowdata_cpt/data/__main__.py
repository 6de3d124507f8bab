"""Print the data cards of all domains on disk: `python -m lowdata_cpt.data > docs/data/cards.md`."""

from __future__ import annotations

from lowdata_cpt.data import DOMAINS
from lowdata_cpt.data.folders import FolderDomain


def cards() -> str:
    """Return the cards as one Markdown page."""
    found = (domain.card().replace("# ", "## ", 1) for domain in DOMAINS if issubclass(domain, FolderDomain))
    return "# Data cards\n\nWritten by `python -m lowdata_cpt.data`; do not edit.\n\n" + "\n".join(found)


if __name__ == "__main__":
    print(cards(), end="")
