"""Which finished cells an answer is made of before a study is whole."""

from __future__ import annotations

import pytest

from lowdata_cpt.reproduce.partial import told
from lowdata_cpt.study.grid import Cell


def cells(domain: str, method: str, n: int, seeds: range) -> list[Cell]:
    return [Cell("vit", domain, method, n, seed) for seed in seeds]


FIVE = range(5)
WANTED = [
    *(cell for domain in ("steel", "cifar") for cell in cells(domain, "base", 0, FIVE)),
    *(cell for domain in ("steel", "cifar") for cell in cells(domain, "diet_cp", 100, FIVE)),
    *cells("steel", "tec", 100, range(2)),
]


@pytest.mark.parametrize(
    ("finished", "told_of"),
    [
        ({("steel", "diet_cp"): 3}, {("steel", "base"), ("steel", "diet_cp")}),
        ({("steel", "diet_cp"): 2}, set()),
        # All that is asked for is enough, though it is less.
        ({("steel", "diet_cp"): 2, ("steel", "tec"): 2}, {("steel", "base"), ("steel", "tec")}),
        ({("steel", "diet_cp"): 5, ("cifar", "diet_cp"): 2}, {("steel", "base"), ("steel", "diet_cp")}),
    ],
)
def test_a_run_is_told_from_three_seeds_on(finished: dict[tuple[str, str], int], told_of: set[tuple[str, str]]) -> None:
    done = [cell for cell in WANTED if not cell.n or cell.seed < finished.get((cell.domain, cell.method), 0)]
    shown = told(done, WANTED)
    assert {(cell.domain, cell.method) for cell in shown} == told_of
    assert all(cell in done for cell in shown)
    assert sum(cell.n > 0 for cell in shown) == sum(count for of, count in finished.items() if of in told_of)


def test_a_study_that_trains_nothing_is_told_as_it_is() -> None:
    done = cells("steel", "base", 0, range(1))
    assert told(done, cells("steel", "base", 0, FIVE)) == done
