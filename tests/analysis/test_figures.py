from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lowdata_cpt.analysis import commands, style
from lowdata_cpt.analysis.figures.cost import draw_cost
from lowdata_cpt.analysis.figures.gain import draw_gain_by_n, draw_gain_summary
from lowdata_cpt.analysis.figures.improvement import draw_improvement
from lowdata_cpt.analysis.figures.inside import draw_inside, draw_neighbours
from lowdata_cpt.analysis.figures.qualitative import class_palette, draw_qualitative
from lowdata_cpt.analysis.figures.tradeoff import draw_tradeoff
from lowdata_cpt.core.errors import UserError
from tests.analysis import synthetic_study


@pytest.fixture(scope="session")
def drawn(small: Path, claims_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = Path(shutil.copytree(small, tmp_path_factory.mktemp("drawn") / "study"))
    commands.make_claims(folder / "scores.csv", claims_file, folder, "embedded")
    return list(commands.make_figures(folder, folder / "figures"))


def test_every_figure_has_four_files_and_states_n_seeds_and_interval(drawn: list[Path]) -> None:
    names = {path.stem for path in drawn}
    place = "vits14_imgfocus-tabletop"
    assert names >= {"gain_by_n", "gain_summary", "improvement", "cost", "tradeoff", "claims"}
    assert names >= {"gain_over_control", f"curves-{place}"}
    assert names >= {f"qualitative-{place}-segmentation", f"qualitative-{place}-depth"}
    for name in names:
        assert {path.suffix for path in drawn if path.stem == name} == {".pdf", ".png", ".md", ".csv"}
    for path in drawn:
        assert path.stat().st_size > 50
        if path.suffix == ".md":
            caption = path.read_text()
            assert "interval" in caption, path
            assert "seed" in caption, path
    assert "2 seeds" in (drawn[0].parent / "gain_by_n.md").read_text()
    assert "n = 100, 250, 500, 1000" in (drawn[0].parent / "gain_by_n.md").read_text()


def test_equal_input_gives_equal_bytes_without_dates(small: Path, tmp_path: Path) -> None:
    scores = synthetic_study.scores(domains=("tabletop",), seeds=2, methods=("diet_cp",))
    for folder in ("a", "b"):
        draw_gain_summary(scores, tmp_path / folder)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert b"CreationDate" not in (tmp_path / "a" / "gain_summary.pdf").read_bytes()


def test_source_table_holds_what_is_drawn(drawn: list[Path], small: Path) -> None:
    table = pd.read_csv(drawn[0].parent / "gain_by_n.csv")
    scores = pd.read_csv(small / "scores.csv")
    ends = scores["images_seen"].isin([0, synthetic_study.IMAGES])
    scores = scores[ends & scores["split"].eq("test") & scores["metric"].eq("miou")].set_index(["method", "n", "seed"])
    expected = np.mean([scores.loc[("dino", 250, s), "value"] - scores.loc[("base", 0, s), "value"] for s in (0, 1)])
    row = table[table["method"].eq("dino") & table["n"].eq(250) & table["metric"].eq("miou")]
    assert row["shown_gain"].item() == pytest.approx(100 * expected, rel=1e-4)


def test_one_seed_draws_no_interval_and_says_so(tmp_path: Path) -> None:
    scores = synthetic_study.scores(domains=("tabletop",), seeds=1, methods=("diet_cp",))
    for draw in (draw_gain_by_n, draw_gain_summary, draw_improvement, draw_cost, draw_tradeoff):
        paths = draw(scores, tmp_path)
        caption = next(path for path in paths if path.suffix == ".md").read_text()
        assert "no confidence interval" in caption, draw.__name__
    table = pd.read_csv(tmp_path / "gain_by_n.csv")
    assert table["shown_gain"].notna().all()
    assert table[["shown_low", "shown_high"]].isna().all(axis=None)


def test_missing_tasks_and_untrained_studies(tmp_path: Path) -> None:
    camvid = synthetic_study.scores(domains=("camvid",), methods=("glare",))
    assert draw_tradeoff(camvid, tmp_path) == []  # one task: nothing to trade
    assert draw_gain_by_n(camvid, tmp_path)
    untrained = camvid[camvid["n"].eq(0)]
    for draw in (draw_gain_by_n, draw_gain_summary, draw_cost, draw_tradeoff):
        assert draw(untrained, tmp_path) == []


def test_a_pooled_gain_over_fewer_domains_is_named(tmp_path: Path) -> None:
    scores = synthetic_study.scores(domains=("camvid", "tabletop"), methods=("glare", "dino"))
    draw_gain_summary(scores[~(scores["method"].eq("dino") & scores["domain"].eq("camvid"))], tmp_path)
    caption = (tmp_path / "gain_summary.md").read_text()
    assert "no fair neighbour to them: DINO (control) in Segmentation mIoU (Tabletop only). " in caption


def test_variants_stay_out_of_the_main_figures(tmp_path: Path) -> None:
    scores = synthetic_study.scores(domains=("camvid",), methods=("glare", "glare_no_regional"))
    draw_gain_by_n(scores, tmp_path)
    assert set(pd.read_csv(tmp_path / "gain_by_n.csv")["method"]) == {"glare"}
    paths = draw_gain_summary(scores, tmp_path)
    assert {path.stem for path in paths} == {"gain_summary", "ablations"}  # the control is not in the table
    row = pd.read_csv(tmp_path / "ablations.csv").iloc[0]
    assert (row["method"], row["reference"]) == ("glare_no_regional", "glare")
    assert row["mean"] < 0


def test_styles_are_fixed_and_distinct() -> None:
    main = [style.STYLES[name] for name in ("dino", "mae", "diet_cp", "glare", "tec", "v_pretraining", "base")]
    assert len({look.color for look in main}) == len({look.marker for look in main}) == len(main)
    variant = style.style_of("glare_no_regional")
    assert (variant.color, variant.filled) == (style.STYLES["glare"].color, False)
    assert style.style_of("something_new") == style.style_of("something_new")
    assert style.ordered(["tec", "glare_x", "base", "dino"]) == ["base", "dino", "tec", "glare_x"]
    assert style.is_variant("v_pretraining_random_mask")
    assert not style.is_variant("v_pretraining")


def test_class_palette_is_stable_and_distinct() -> None:
    assert np.array_equal(class_palette(41)[:10], class_palette(10))
    assert len(np.unique(class_palette(41).round(3), axis=0)) == 41


def test_looks_inside(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image, step = rng.integers(0, 255, (2, 28, 28, 3)).astype(np.uint8), np.array([0, 5, 9])
    predicted = rng.standard_normal((1, 12))
    masks = tmp_path / "inside-b-tabletop-v_pretraining.npz"
    np.savez(
        masks,
        **{"image": image, "step": step, "mask": rng.random((3, 2, 28, 28)), "arms": np.array(["adamw all 1e-05"])},
        predicted=predicted,
        realised=predicted + 0.1 * rng.standard_normal((1, 12)),
    )
    names = {path.name for path in draw_inside(masks, tmp_path)}
    assert {"masks-b-tabletop.pdf", "value-b-tabletop.png"} <= names
    assert "n = 12" in (tmp_path / "value-b-tabletop.md").read_text()
    row = pd.read_csv(tmp_path / "value-b-tabletop-correlations.csv").iloc[0]
    assert row["mean_predicted"] == pytest.approx(predicted.mean(), rel=0.01)
    assert 0 <= row["share_fallen"] <= 1
    found = rng.random((3, 2, 2, 2))
    regions = tmp_path / "inside-b-tabletop-glare.npz"
    views = rng.integers(0, 255, (3, 2, 2, 28, 28, 3)).astype(np.uint8)
    np.savez(regions, image=image, step=step, views=views, attention=found, found=found / 2, region=found > 0.5)
    assert "regions-b-tabletop.csv" in {path.name for path in draw_inside(regions, tmp_path)}
    np.savez(regions, image=image)
    with pytest.raises(UserError, match="image and step"):
        draw_inside(regions, tmp_path)


def test_neighbours_before_and_after(tmp_path: Path) -> None:
    path = tmp_path / "b-tabletop.npz"
    arrays = {"image": np.zeros((2, 8, 8, 3), np.uint8), "neighbours_query": np.zeros((2, 8, 8, 3), np.uint8)}
    for method, same in (("base", False), ("diet_cp", True)):
        arrays[f"neighbours_{method}"] = np.zeros((2, 4, 8, 8, 3), np.uint8)
        arrays[f"neighbours_{method}_same"] = np.full((2, 4), same)
    np.savez(path, **arrays)
    assert draw_neighbours(path, tmp_path)
    assert "DIET-CP 100 %" in (tmp_path / "neighbours-b-tabletop.md").read_text()
    del arrays["neighbours_diet_cp"]
    np.savez(path, **arrays)
    assert draw_neighbours(path, tmp_path) == []


def test_wrong_archives_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "b-d.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a readable"):
        draw_qualitative(path, tmp_path)
    np.savez(path, image=np.zeros((2, 8, 8, 3), np.uint8), depth_truth=np.zeros((2, 8, 9), np.float32))
    with pytest.raises(UserError, match="depth_truth has shape"):
        draw_qualitative(path, tmp_path)
    np.savez(path, depth_truth=np.zeros((2, 8, 9), np.float32))
    with pytest.raises(UserError, match="expected an array image"):
        draw_qualitative(path, tmp_path)
