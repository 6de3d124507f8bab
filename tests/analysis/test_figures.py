from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lowdata_cpt.analysis import commands, style
from lowdata_cpt.analysis.figures import FIGURES, StudyFacts, draw, figure_names, figure_reads, missing_inputs
from lowdata_cpt.analysis.figures.gain_by_n import gains_by_n
from lowdata_cpt.analysis.figures.learning import curve_of_scores, source_lengths
from lowdata_cpt.analysis.figures.qualitative import _segmentation, class_palette, draw_depth
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.core.errors import UserError
from tests.analysis import synthetic_study

PLACE = ("vits14_imgfocus", "tabletop")
FACTS = StudyFacts({PLACE: ("segmentation", "depth")})


def study(folder: Path, table: pd.DataFrame) -> Path:
    """A folder that holds nothing but this table."""
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / "scores.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def drawn(small: Path, claims_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(small, tmp_path_factory.mktemp("drawn") / "study"))
    commands.make_claims(folder, claims_file, folder, "embedded")
    for name in figure_names(FACTS):
        draw(name, folder, folder / "figures")
    return folder


def test_names_follow_from_the_configuration_alone() -> None:
    names = figure_names(FACTS)
    assert names[:2] == ["answer", "learning"]
    assert set(names) == {
        *("answer", "learning", "learning_seconds", "gains", "gains_over_reference", "gain_by_n", "claims"),
        *(f"{kind}-vits14_imgfocus-tabletop" for kind in ("loss", "segmentation", "depth")),
    }
    looked_into = {(*PLACE, "glare"): "glare", (*PLACE, "v"): "v_pretraining"}
    found = set(figure_names(StudyFacts({PLACE: ("classification",)}, looked_into, several_sizes=False)))
    assert found >= {"neighbours-vits14_imgfocus-tabletop", "loss-vits14_imgfocus-tabletop"}
    assert found >= {"regions-vits14_imgfocus-tabletop-glare", "masks-vits14_imgfocus-tabletop-v"}
    assert "gain_by_n" not in found
    assert figure_names(StudyFacts({PLACE: ()})) == []
    assert figure_names(StudyFacts({PLACE: ("depth",)}, trained=False)) == ["depth-vits14_imgfocus-tabletop"]


def test_a_name_says_what_is_read_and_a_wrong_one_is_one_sentence(small: Path) -> None:
    assert figure_reads("depth-b-nyuv2") == ["qualitative/examples-b-nyuv2.npz"]
    assert figure_reads("value-b-nyuv2-v") == ["qualitative/diagnostics-b-nyuv2-v.npz"]
    assert figure_reads("loss-b-d") == ["curves.csv", "study.json", "cost.csv"]
    assert missing_inputs("depth-b-nyuv2", small) == ["qualitative/examples-b-nyuv2.npz"]
    assert missing_inputs("learning", small) == []
    for name in ("tradeoff", "learning-b-d", "depth-b", "value-b-d"):
        with pytest.raises(UserError, match="expected one of answer, learning"):
            draw(name, small, small)


def test_a_figures_code_is_its_own_module() -> None:
    from lowdata_cpt.core.code_versions import sources
    from lowdata_cpt.jobs.figures import code_modules

    modules = {f"analysis.figures.{figure.module}" for figure in FIGURES.values()}
    for name in ("learning", "gains", "gain_by_n", "loss-b-d", "answer", "claims", "masks-b-d-v"):
        used = set(sources(*code_modules(name)))
        own = set(code_modules(name))
        assert own <= used
        allowed = {"analysis.figures.qualitative"} if name.startswith("masks") else set()
        assert used & modules <= own | allowed, name


def test_every_figure_has_three_files_and_states_seeds_and_interval(drawn: Path) -> None:
    for name in figure_names(FACTS):
        files = {path.suffix: path for path in (drawn / "figures").iterdir() if path.stem == name}
        assert set(files) == {".png", ".md", ".csv"}
        assert len(pd.read_csv(files[".csv"])) > 1
        caption = files[".md"].read_text()
        assert caption.startswith("**")
        assert "interval" in caption
        assert "seed" in caption
    assert "n = 100, 250, 500, 1000" in (drawn / "figures/gain_by_n.md").read_text()


def test_equal_input_gives_equal_bytes_and_a_pdf_only_on_request(drawn: Path, tmp_path: Path) -> None:
    draw("gains", drawn, tmp_path, pdf=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"gains.png", "gains.md", "gains.csv", "gains.pdf"}
    for name in names - {"gains.pdf"}:
        assert (tmp_path / name).read_bytes() == (drawn / "figures" / name).read_bytes()
    assert b"CreationDate" not in (tmp_path / "gains.pdf").read_bytes()


def test_the_learning_curve_is_mean_scores_from_the_methods_own_step_zero(scores: pd.DataFrame) -> None:
    rows = scores[scores["domain"].eq("nyuv2") & scores["n"].isin([0, 100])]
    test = rows[rows["split"].eq("test")]
    mean = test.groupby(["metric", "method", "images_seen"])["value"].mean()
    curve = curve_of_scores(rows).set_index(["metric", "method", "images_seen"])
    for metric, unit in (("miou", 100), ("rmse", 1)):
        for images, method in ((0, "base_domain_norm"), (4_800, "diet_cp")):
            row = curve.loc[(metric, "diet_cp", images)]
            assert row["score"] == pytest.approx(unit * mean[metric, method, images])
            assert row["base"] == pytest.approx(unit * mean[metric, "base", 0])
            assert row["low"] < row["score"] < row["high"]
        assert curve.loc[(metric, "glare", 0), "score"] == pytest.approx(unit * mean[metric, "base", 0])
    point = curve.loc[("rmse", "diet_cp", 4_800)]
    assert point["high"] - point["score"] == pytest.approx(point["base"] / 100 * (point["mean"] - point["ci_low"]))


def test_a_line_begins_at_step_zero(drawn: Path) -> None:
    table = pd.read_csv(drawn / "figures/learning.csv")
    starts = table[table["images_seen"].eq(0)].groupby("metric")["method"].agg(set)
    assert set(starts.index) == {"knn_accuracy", "linear_accuracy", "miou", "rmse"}
    assert all(found == {"diet_cp", "dino"} for found in starts)


def test_the_source_length_is_known_from_the_share_of_its_run(small: Path) -> None:
    lengths = source_lengths(StudyFiles(small))
    assert lengths[(*PLACE, "diet_cp", 100)] == pytest.approx(150 * 100)
    assert lengths[(*PLACE, "diet_cp", 1000)] == pytest.approx(150 * 1000)


def test_sizes_are_compared_at_the_end_and_at_equal_images(scores: pd.DataFrame) -> None:
    rows = scores[scores["domain"].eq("nyuv2") & scores["metric"].eq("miou")]
    assert set(gains_by_n(rows)["at"]) == {"end"}
    shorter = rows[~(rows["method"].eq("glare") & rows["n"].eq(100) & rows["images_seen"].gt(4_800))]
    table = gains_by_n(shorter)
    table = table[table["method"] == "glare"].set_index(["at", "n"])["images_seen"]
    assert table["end"].to_dict() == {100: 4_800, 250: 12_800, 500: 12_800, 795: 12_800}
    assert set(table["equal images"]) == {4_800}
    assert gains_by_n(rows[rows["n"].isin([0, 100])]).empty


def test_one_seed_draws_no_interval_and_says_so(tmp_path: Path) -> None:
    table = synthetic_study.scores(domains=("tabletop",), seeds=1, methods=("diet_cp", "dino"))
    folder = study(tmp_path / "one", table)
    for name in ("answer", "learning", "learning_seconds", "gains", "gains_over_reference", "gain_by_n"):
        draw(name, folder, tmp_path)
        assert "no confidence interval" in (tmp_path / f"{name}.md").read_text(), name
        assert pd.read_csv(tmp_path / f"{name}.csv")["ci_low"].isna().all()


def test_an_untrained_study_has_figures_that_say_why_they_are_empty(tmp_path: Path) -> None:
    table = synthetic_study.scores(domains=("camvid",), methods=("glare",))
    folder = study(tmp_path / "none", table[table["n"].eq(0)])
    for name in ("answer", "learning", "gains", "gains_over_reference", "gain_by_n", "claims"):
        draw(name, folder, tmp_path)
        reason = (tmp_path / f"{name}.md").read_text().strip()
        assert pd.read_csv(tmp_path / f"{name}.csv")["nothing"].tolist() == [reason]
        assert (tmp_path / f"{name}.png").stat().st_size > 500


def test_variants_stand_beside_their_parent_only(tmp_path: Path) -> None:
    table = synthetic_study.scores(domains=("camvid",), methods=("glare", "glare_no_regional"))
    folder = study(tmp_path / "variants", table)
    for name in ("answer", "learning", "gains", "gain_by_n", "gains_over_reference"):
        draw(name, folder, tmp_path)
        found = pd.read_csv(tmp_path / f"{name}.csv")
        expected = {"glare_no_regional"} if name == "gains_over_reference" else {"glare"}
        assert set(found["method"]) == expected
    assert set(found["reference"]) == {"glare"}


def test_a_loss_lies_beside_the_level_it_must_beat(drawn: Path) -> None:
    table = pd.read_csv(drawn / "figures/loss-vits14_imgfocus-tabletop.csv")
    levels = table[table["method"].eq("diet_cp")].groupby("n")["level"].first()
    assert levels.to_dict() == pytest.approx({n: np.log(n) - 0.1 for n in (100, 250, 500, 1000)}, rel=1e-4)


def test_an_idle_method_is_marked(small: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small, tmp_path / "idle"))
    curves = pd.read_csv(folder / "curves.csv")
    curves.loc[curves["method"].eq("diet_cp") & curves["n"].eq(100), "loss"] = np.log(100)
    curves.to_csv(folder / "curves.csv", index=False)
    for name in ("gains", "answer", "loss-vits14_imgfocus-tabletop"):
        draw(name, folder, tmp_path)
    assert "Open: by its own log the method did not act" in (tmp_path / "answer.md").read_text()
    assert "by its own log the method did not act" in (tmp_path / "gains.md").read_text()
    assert "Not reached in some cell: DIET-CP." in (tmp_path / "loss-vits14_imgfocus-tabletop.md").read_text()


def test_tiles_of_the_sheets_are_large_enough_to_see_something(small: Path) -> None:
    with style.house_style():
        figure = draw_depth(StudyFiles(small), *PLACE).figure
        figure.set_dpi(style.RC["savefig.dpi"])
        figure.draw_without_rendering()
        tiles = [axis.get_window_extent().width for axis in figure.axes if axis.images]
    assert len(tiles) == 2 * 7
    assert min(tiles) >= 160


def test_styles_are_fixed_and_distinct() -> None:
    main = [style.STYLES[name] for name in ("dino", "mae", "diet_cp", "glare", "tec", "v_pretraining", "base")]
    assert len({look.color for look in main}) == len({look.marker for look in main}) == len(main)
    variant = style.style_of("glare_no_regional")
    assert (variant.color, variant.filled) == (style.STYLES["glare"].color, False)
    assert style.style_of("something_new") == style.style_of("something_new")
    assert style.ordered(["tec", "glare_x", "base", "dino"]) == ["base", "dino", "tec", "glare_x"]
    assert style.is_variant("v_pretraining_random_mask")
    assert not style.is_variant("v_pretraining")
    assert (style.short_label("base"), style.short_label("dino")) == ("Base", "DINO")


def test_class_palette_is_stable_and_distinct() -> None:
    assert np.array_equal(class_palette(41)[:10], class_palette(10))
    assert len(np.unique(class_palette(41).round(3), axis=0)) == 41


def test_looks_inside(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "qualitative"
    folder.mkdir()
    image, step = rng.integers(0, 255, (2, 28, 28, 3)).astype(np.uint8), np.array([0, 5, 9])
    predicted = rng.standard_normal((1, 12))
    realised = predicted + 0.1 * rng.standard_normal((1, 12))
    np.savez(
        folder / "diagnostics-b-tabletop-v_pretraining.npz",
        **{"image": image, "step": step, "mask": rng.random((3, 2, 28, 28)), "arms": np.array(["adamw all 1e-05"])},
        predicted=predicted,
        realised=realised,
    )
    for kind in ("masks", "value"):
        draw(f"{kind}-b-tabletop-v_pretraining", tmp_path, tmp_path)
    assert "n = 12" in (tmp_path / "value-b-tabletop-v_pretraining.md").read_text()
    row = pd.read_csv(tmp_path / "value-b-tabletop-v_pretraining.csv").iloc[0]
    assert row["mean_predicted"] == pytest.approx(predicted.mean(), rel=0.01)
    assert row["share_fallen"] == pytest.approx((realised > 0).mean(), rel=1e-4)
    assert 0 < row["share_fallen"] < 1
    assert len(pd.read_csv(tmp_path / "masks-b-tabletop-v_pretraining.csv")) == 6
    found, regions = rng.random((3, 2, 2, 2)), folder / "diagnostics-b-tabletop-glare.npz"
    views = rng.integers(0, 255, (3, 2, 2, 28, 28, 3)).astype(np.uint8)
    np.savez(regions, image=image, step=step, views=views, attention=found, found=found / 2, region=found > 0.5)
    draw("regions-b-tabletop-glare", tmp_path, tmp_path)
    assert set(pd.read_csv(tmp_path / "regions-b-tabletop-glare.csv")["step"]) == {0, 9}
    np.savez(regions, image=image)
    with pytest.raises(UserError, match="image and step"):
        draw("regions-b-tabletop-glare", tmp_path, tmp_path)


def test_the_legend_names_what_is_predicted_too(tmp_path: Path) -> None:
    truth = np.zeros((1, 8, 8), np.uint8)
    arrays = {"segmentation_truth": truth, "segmentation_base": truth + 2, "image": np.zeros((1, 8, 8, 3), np.uint8)}
    names = np.array(["ground", "cup", "bowl"])
    figure, _ = _segmentation(arrays | {"segmentation_classes": names}, ["base"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ground", "bowl"]


def test_neighbours_before_and_after(tmp_path: Path) -> None:
    path = tmp_path / "qualitative" / "examples-b-tabletop.npz"
    path.parent.mkdir()
    arrays = {"image": np.zeros((2, 8, 8, 3), np.uint8), "neighbours_query": np.zeros((2, 8, 8, 3), np.uint8)}
    for method, same in (("base", False), ("diet_cp", True)):
        arrays[f"neighbours_{method}"] = np.zeros((2, 4, 8, 8, 3), np.uint8)
        arrays[f"neighbours_{method}_same"] = np.full((2, 4), same)
    np.savez(path, **arrays)
    draw("neighbours-b-tabletop", tmp_path, tmp_path)
    assert "Base (no training) 0 of 8, DIET-CP 8 of 8" in (tmp_path / "neighbours-b-tabletop.md").read_text()
    del arrays["neighbours_diet_cp"]
    np.savez(path, **arrays)
    draw("neighbours-b-tabletop", tmp_path, tmp_path)
    assert "was not run here" in (tmp_path / "neighbours-b-tabletop.md").read_text()


def test_wrong_archives_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "qualitative" / "examples-b-d.npz"
    path.parent.mkdir()
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a readable"):
        draw("segmentation-b-d", tmp_path, tmp_path)
    np.savez(path, image=np.zeros((2, 8, 8, 3), np.uint8), depth_truth=np.zeros((2, 8, 9), np.float32))
    with pytest.raises(UserError, match="depth_truth has shape"):
        draw("depth-b-d", tmp_path, tmp_path)
    np.savez(path, depth_truth=np.zeros((2, 8, 9), np.float32))
    with pytest.raises(UserError, match="expected an array image"):
        draw("depth-b-d", tmp_path, tmp_path)
    np.savez(path, image=np.zeros((2, 8, 8, 3), np.uint8))
    draw("depth-b-d", tmp_path, tmp_path)
    assert "no examples of depth" in (tmp_path / "depth-b-d.md").read_text()
