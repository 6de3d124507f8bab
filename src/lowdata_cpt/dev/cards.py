"""Print the data cards of all domains on disk: `python -m lowdata_cpt.dev.cards > docs/data/cards.md`."""

from __future__ import annotations

from lowdata_cpt.data.layouts.folders import FolderDomain
from lowdata_cpt.data.registry import DOMAINS


def cards() -> str:
    """Return the cards as one Markdown page."""
    found = (domain.card().replace("# ", "## ", 1) for domain in DOMAINS if issubclass(domain, FolderDomain))
    return "# Data cards\n\nWritten by `python -m lowdata_cpt.dev.cards`; do not edit.\n\n" + "\n".join(found)


if __name__ == "__main__":
    print(cards(), end="")
