from __future__ import annotations

from pathlib import Path

from lowdata_cpt.data.layouts.folders import FolderDomain
from lowdata_cpt.data.registry import DOMAINS, label_of
from lowdata_cpt.dev.cards import cards

DOCS = Path(__file__).parents[2] / "docs" / "data"


def test_cards_are_those_of_the_code() -> None:
    written = (DOCS / "cards.md").read_text(encoding="utf-8")
    assert written == cards(), "run: python -m lowdata_cpt.dev.cards > docs/data/cards.md"


def test_the_table_names_every_domain() -> None:
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    for domain in DOMAINS:
        if issubclass(domain, FolderDomain):
            assert f"| `{domain.model_fields['kind'].default}` |" in text


def test_every_domain_says_what_it_is_called() -> None:
    labels = [label_of(str(domain.model_fields["kind"].default)) for domain in DOMAINS]
    assert len(set(labels)) == len(labels)
    assert label_of("neu_steel") == "NEU steel"
    assert label_of("medmnist_path") == "MedMNIST path"
    assert label_of("my_own_scans") == "my own scans"
