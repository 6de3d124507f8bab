from __future__ import annotations

from pathlib import Path

from lowdata_cpt.analysis.style import domain_label
from lowdata_cpt.data.layouts.folders import FolderDomain
from lowdata_cpt.data.registry import DOMAINS

DOCS = Path(__file__).parents[2] / "docs" / "data"


def test_the_table_names_every_domain() -> None:
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    for domain in DOMAINS:
        if issubclass(domain, FolderDomain):
            assert f"| `{domain.model_fields['kind'].default}` |" in text


def test_every_domain_has_its_own_name_in_tables_and_figures() -> None:
    kinds = [str(domain.model_fields["kind"].default) for domain in DOMAINS]
    assert len({domain_label(kind) for kind in kinds}) == len(kinds)
    assert domain_label("neu_steel") == "NEU steel"
    assert domain_label("medmnist_path") == "PathMNIST"
    assert domain_label("my_own_scans") == "my own scans"
