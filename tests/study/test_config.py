from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.dev.generate import GENERATED, ROOT
from lowdata_cpt.methods.registry import by_name
from lowdata_cpt.study import job_params as params
from lowdata_cpt.study.config import Resources, Study
from lowdata_cpt.study.grid import Cell, cells, diagnosed, only, pairs, shown_cells, split_absent
from lowdata_cpt.study.load import extended, load, validate

CONTENTS = {path: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "config").glob("*.yaml"))}
STUDIES = [path for path, content in CONTENTS.items() if "study" in content and content.get("kind") != "language"]


def raw() -> dict[str, Any]:
    """Return quick's configuration with the base that it extends."""
    own: dict[str, Any] = yaml.safe_load((ROOT / "config/quick.yaml").read_text(encoding="utf-8"))
    return extended(own, ROOT / "config")


@pytest.mark.parametrize("path", [p for p in STUDIES if p.name != "defaults.yaml"], ids=lambda p: p.name)
def test_every_study_file_is_valid_and_says_how_to_run_it(path: Path) -> None:
    assert list(cells(load(path)))
    header = path.read_text(encoding="utf-8").split("study:")[0]
    for word in ("command", "wall time", "headline"):
        assert word in header, word


def test_the_default_study_is_quick() -> None:
    assert load(ROOT / "config/quick.yaml").study == "quick"


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_generated_files_have_not_drifted(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == GENERATED[name](), f"run `make config` and commit {name}"


def mutate(path: str, value: Any) -> dict[str, Any]:
    config = raw()
    *parents, last = path.split(".")
    inner = config
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("metods", {}, "metods: unknown key; did you mean 'methods'?"),
        ("training.imags_seen", 3, "training.imags_seen: unknown key; did you mean 'images_seen'?"),
        ("methods.diet_cp.label_smothing", 0.1, "did you mean 'label_smoothing'?"),
        ("domains.tabletop.pol", 3, "did you mean 'pool'?"),
        ("training.batch_size", "many", "training.batch_size"),
        ("training.epochs", 3, "exactly one of `images_seen` and `epochs`"),
        ("methods.diet", {}, "methods.diet"),
        ("domains.moon", {}, "domains.moon"),
        ("domains.tabletop.sizes", [0], "sizes are [0]; expected numbers from 1, each once"),
        ("domains.tabletop.sizes", [100, 100], "sizes are [100, 100]; expected numbers from 1, each once"),
        ("seeds", [-1], "seeds.0: Input should be greater than or equal to 0 (got -1)"),
        ("methods.random2", {"method": "random"}, "random2 is of method random"),
        ("methods.base", {"method": "diet_cp"}, "base is of method diet_cp"),
        ("backbones.vits14_imgfocus", {"model": "test_vit", "sha256": "0" * 64}, "but weights are `timm`"),
        ("seeds", [0, 0], "seeds are [0, 0]; expected whole numbers from 0 that differ"),
        ("domains.tabletop.sizes", [100, 5000], "the pool has"),
        (
            "domains.tabletop.sizes",
            [1, 100],
            "sizes has 1, but diet_cp learns to tell images apart; expected numbers from",
        ),
        ("backbones.vits14_imgfocus.weights", "the internet", "backbones.vits14_imgfocus.weights"),
        ("probes.image_sizes", {"tabletop": 99}, "tabletop: 99 is not a multiple of vits14_imgfocus's patch size 14"),
        ("study", "../elsewhere", "study"),
        ("training", None, "training"),
    ],
)
def test_each_mistake_has_one_clear_message(path: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as error:
        validate(mutate(path, value))
    assert expected in str(error.value)
    assert "1 error(s)" in str(error.value)


def test_all_mistakes_are_reported_at_once() -> None:
    config = mutate("training.batch_size", 0) | {"seed": [1]}
    del config["backbones"]
    with pytest.raises(UserError) as error:
        validate(config)
    message = str(error.value)
    assert "3 error(s)" in message
    for key in ("training.batch_size", "seed:", "backbones: required key is missing"):
        assert key in message


def test_base_is_required() -> None:
    config = raw()
    del config["methods"]["base"]
    with pytest.raises(UserError, match="`base`"):
        validate(config)


def test_resources_are_in_no_identity() -> None:
    study = load(ROOT / "config/quick.yaml")
    other = study.model_copy(update={"resources": Resources(device="cuda", threads=7, gpu=2, mem_mb=9999)})

    def texts(study: Study) -> list[str]:
        found = [params.study_params(study)]
        for cell in cells(study):
            found += [params.data_params(study, cell.domain), params.backbone_params(study, cell.backbone)]
            found += [params.pretrain_params(study, cell), params.evaluate_params(study, cell)]
        return [params.dump(one) for one in found]

    assert texts(study) == texts(other)


GRID: dict[str, Any] = {
    "study": "grid",
    "backbones": {"a": {"model": "vit_tiny_patch16_224"}, "b": {"model": "test_vit"}},
    "domains": {"camvid": {"sizes": [10, 20]}, "cifar10": {"sizes": [10]}},
    "methods": {"base": {}, "diet_cp": {}, "mae": {}},
    "training": {"epochs": 1},
}


def grid_of(*blocks: dict[str, Any]) -> set[tuple[str, str, str, int]]:
    return {cell[:4] for cell in cells(validate({**GRID, "grid": list(blocks)}))}


def test_without_a_grid_everything_is_crossed() -> None:
    assert len(list(cells(validate(GRID)))) == 2 * ((1 + 2 * 2) + (1 + 2 * 1))


def test_blocks_name_their_cells_and_overlap_counts_once() -> None:
    found = grid_of(
        {"backbones": ["a"], "domains": ["camvid"], "methods": ["base", "diet_cp"], "sizes": [20]},
        {"backbones": ["a", "b"], "domains": ["cifar10"]},
    )
    assert found == {("a", "camvid", "base", 0), ("a", "camvid", "diet_cp", 20)} | {
        (b, "cifar10", m, n) for b in "ab" for m, n in (("base", 0), ("diet_cp", 10), ("mae", 10))
    }
    study = validate({**GRID, "grid": [{"backbones": ["a"], "domains": ["camvid"]}, {"domains": ["cifar10"]}]})
    assert pairs(study) == [("a", "camvid"), ("a", "cifar10"), ("b", "cifar10")]
    everything = list(cells(validate({**GRID, "grid": [{}, {"seeds": [0]}]})))
    assert everything == list(cells(validate(GRID)))


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"backbones": ["c"]}, r"grid.0.backbones: ['c'] are not in `backbones`; there are ['a', 'b']"),
        ({"domains": ["moon"]}, "grid.0.domains: ['moon']"),
        ({"methods": ["base", "tec"]}, "grid.0.methods: ['tec']"),
        ({"methods": ["diet_cp", "mae"]}, "grid.0.methods must have `base`"),
        ({"sizes": [20]}, "domain 'cifar10' has none of them"),
        ({"sizes": [10, 99]}, "[99]"),
        ({"backbones": []}, "grid.0.backbones: Tuple should have at least 1 item"),
        ({"backbones": ["a"]}, "backbones ['b'] are in no block of `grid`"),
        ({"backbone": ["a"]}, "did you mean 'backbones'?"),
    ],
)
def test_a_wrong_block_has_one_clear_message(block: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as error:
        validate({**GRID, "grid": [block]})
    assert expected in str(error.value)
    assert "1 error(s)" in str(error.value)


def test_feedback_needs_dense_labels() -> None:
    methods = {"base": {}, "v_pretraining": {}}
    with pytest.raises(
        UserError, match=r"v_pretraining.*need segmentation or depth labels, which domains \['cifar10'\]"
    ):
        validate({**GRID, "methods": methods})
    blocks = [{"domains": ["camvid"]}, {"domains": ["cifar10"], "methods": ["base"]}]
    assert len(list(cells(validate({**GRID, "methods": methods, "grid": blocks})))) == 2 * (1 + 2 + 1)


def test_probe_images_of_an_unknown_domain() -> None:
    with pytest.raises(UserError, match=r"image_sizes: \['moon'\]"):
        validate({**GRID, "probes": {"image_sizes": {"moon": 64}}})


def test_absent_domains_are_left_out_with_what_only_they_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    camvid = Path("data/camvid/train")
    camvid.mkdir(parents=True)
    raw: dict[str, Any] = {
        "study": "some",
        "backbones": {"a": {"model": "test_vit"}, "b": {"model": "test_vit"}},
        "domains": {"camvid": {"sizes": [4]}, "nyuv2": {"sizes": [4, 8]}},
        "methods": {"base": {}, "diet_cp": {}, "mae": {}},
        "grid": [
            {"backbones": ["a"], "methods": ["base", "diet_cp"]},
            {"backbones": ["b"], "domains": ["nyuv2"], "methods": ["base", "mae"], "sizes": [8]},
        ],
        "training": {"epochs": 1},
        "absent_data": "skip",
    }
    study, reasons = split_absent(validate(raw))
    assert list(reasons) == ["nyuv2"]
    assert "nyu_depth_v2_labeled.mat" in reasons["nyuv2"]
    assert (list(study.domains), list(study.backbones), list(study.methods)) == (["camvid"], ["a"], ["base", "diet_cp"])
    assert validate(study.model_dump(mode="json")) == study
    assert split_absent(validate(raw | {"absent_data": "stop"}))[1] == {}
    Path("results/some/data/nyuv2").mkdir(parents=True)
    Path("results/some/data/nyuv2/manifest.json").write_text("{}")
    assert split_absent(validate(raw))[1] == {}  # decoded already: its results are kept
    shutil.rmtree("results")
    shutil.rmtree(camvid)
    with pytest.raises(UserError, match="no domain is on this machine"):
        split_absent(validate(raw))


TRAINED = [name for name, config in by_name().items() if config.learner_path]


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize(("block", "key"), [("optimiser", "lr"), ("schedule", "warmup")])
def test_a_partial_block_keeps_the_rest_of_the_recipe(method: str, block: str, key: str) -> None:
    recipe = by_name()[method]().model_dump()
    entries = {method: {block: {key: 1e-5}}, f"{method}_variant": {"method": method, block: {key: 1e-5}}}
    study = validate({**GRID, "domains": {"camvid": {"sizes": [10]}}, "methods": {"base": {}} | entries})
    for name in entries:
        assert study.methods[name].model_dump() == recipe | {block: recipe[block] | {key: 1e-5}}


def test_a_methods_training_lies_over_the_studys() -> None:
    training = {"images_seen": 100, "batch_size": 8, "precision": "bf16", "milestones": [20]}
    study = validate(
        {**GRID, "training": training, "methods": {"base": {}, "mae": {}, "diet_cp": {"training": {"epochs": 3}}}}
    )
    assert study.training_of("mae") == study.training
    own = study.training_of("diet_cp")
    assert (own.epochs, own.images_seen, own.batch_size, own.precision) == (3, None, 8, "bf16")
    assert own.milestones == (20,)
    with pytest.raises(UserError, match=r"methods.mae.training.*exactly one"):
        validate({**GRID, "methods": {"base": {}, "mae": {"training": {"epochs": 3, "images_seen": 9}}}})


def test_milestones_are_steps_and_end_with_the_run() -> None:
    training = validate({**GRID, "training": {"epochs": 3, "batch_size": 4, "milestones": [1, 5, 10, 999]}}).training
    # Ten images are batches of 4, 4 and 2: 1 image is seen after one step, 5 after two, 10 with the first epoch.
    assert training.milestone_steps(10) == {1: 4, 2: 8, 3: 10, 9: 30}
    with pytest.raises(UserError, match="ascending"):
        validate({**GRID, "training": {"epochs": 1, "milestones": [5, 5]}})


def write(path: Path, value: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    return path


def test_a_study_lays_its_differences_over_another(tmp_path: Path) -> None:
    write(tmp_path / "below.yaml", GRID | {"methods": {"base": {}, "mae": {"mask_ratio": 0.5}, "diet_cp": {}}})
    own = {"extends": "below.yaml", "study": "own", "methods": {"mae": {"optimiser": {"lr": 1e-5}}, "diet_cp": None}}
    study = load(write(tmp_path / "own.yaml", own))
    assert (study.study, list(study.methods)) == ("own", ["base", "mae"])
    assert study.methods["mae"].model_dump()["mask_ratio"] == 0.5
    assert study.methods["mae"].optimiser.lr == 1e-5
    assert "extends" not in study.model_dump()


@pytest.mark.parametrize(
    ("name", "expected"), [("nowhere.yaml", r"nowhere\.yaml"), ("own.yaml", "circle"), (3, "no file's name")]
)
def test_a_file_that_cannot_be_extended_is_named(name: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=expected):
        load(write(tmp_path / "own.yaml", GRID | {"extends": name}))


def test_blocks_may_name_seeds_and_come_in_their_order() -> None:
    raw = GRID | {"seeds": [0, 1], "grid": [{"methods": ["base", "mae"], "seeds": [1]}, {}]}
    found = list(cells(validate(raw)))
    first = [cell for cell in found if cell.method == "mae"][:4]
    assert {cell.seed for cell in first} == {1}
    assert len(found) == len(set(found)) == 2 * len(list(cells(validate(GRID))))
    with pytest.raises(UserError, match=r"grid.0.seeds: \[7\]"):
        validate(raw | {"grid": [{"seeds": [7]}]})


def test_diagnostics_need_something_to_show() -> None:
    with pytest.raises(UserError, match=r"\['mae'\] have nothing to show"):
        validate(GRID | {"diagnostics": {"camvid": ["mae"]}})


def test_a_part_of_a_study_is_a_study() -> None:
    whole = load(ROOT / "config/embedded.yaml")
    wanted = [Cell("vits14_imgfocus", "tabletop", m, n, 1) for m, n in (("base", 0), ("random", 0), ("diet_cp", 100))]
    part = only(whole, set(wanted))
    assert sorted(cells(part)) == sorted(wanted)
    assert (set(part.domains), part.diagnostics) == ({"tabletop"}, {})
    again = validate(json.loads(part.model_dump_json()), "part")
    assert list(cells(again)) == list(cells(part))


@pytest.mark.parametrize(
    ("base", "own", "expected"),
    [
        ("methods: 3", "methods: {mae: {}}", "base.yaml: methods is 3; expected a mapping"),
        ("methods: [base]", "methods: {mae: {}}", "base.yaml: methods is \\['base'\\]; expected a mapping"),
        ("domains: foo", "domains: {camvid: {}}", "base.yaml: domains is 'foo'; expected a mapping"),
        ("study: x", 'extends: "a\\0b"', "extends: 'a.x00b' is no file's name"),
        ("study: x", 'extends: ""', "extends: '' is no file's name"),
    ],
)
def test_a_base_that_cannot_be_extended_is_named(base: str, own: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(base)
    (tmp_path / "own.yaml").write_text(own if "extends" in own else f"extends: base.yaml\n{own}")
    with pytest.raises(UserError, match=expected):
        load(tmp_path / "own.yaml")


def test_home_stands_in_extends_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/base.yaml").write_text(yaml.safe_dump(raw()))
    (tmp_path / "own.yaml").write_text("extends: ~/base.yaml\nstudy: own\n")
    assert load(tmp_path / "own.yaml").study == "own"


def test_what_is_shown_and_looked_into_are_cells_of_the_grid() -> None:
    """Blocks may leave out the first seed, the first backbone and the smallest n; the largest may come first."""
    config = raw()
    (name,) = config["backbones"]
    config["backbones"]["other"] = dict(config["backbones"][name])
    (domain,) = config["domains"]
    config["domains"][domain]["sizes"] = [10, 50, 100]
    config["methods"] = {method: {} for method in ("base", "base_domain_norm", "diet_cp", "glare")}
    config |= {"seeds": [0, 1, 2], "diagnostics": {domain: ["glare"]}}
    config["grid"] = [
        {"backbones": [name], "methods": ["base", "base_domain_norm", "diet_cp"]},
        {"backbones": ["other"], "methods": ["base", "glare"], "sizes": [100], "seeds": [1, 2]},
        {"backbones": ["other"], "methods": ["base", "glare"], "sizes": [50], "seeds": [1, 2]},
    ]
    study = validate(config)
    there = set(cells(study))
    assert diagnosed(study) == [Cell("other", domain, "glare", 50, 1)]
    assert shown_cells(study, "other", domain)[-1] == Cell("other", domain, "glare", 100, 1)
    for pair in pairs(study):
        shown = shown_cells(study, *pair)
        assert set(shown) <= there
        assert {cell.method for cell in shown} == {cell.method for cell in there if cell[:2] == pair}
    config["domains"]["neu_steel"] = {"sizes": [10]}
    config["grid"].append({"backbones": ["other"], "domains": ["neu_steel"], "methods": ["base", "diet_cp"]})
    for block in config["grid"][:3]:
        block["domains"] = [domain]
    config["diagnostics"] = {"neu_steel": ["glare"]}
    with pytest.raises(UserError, match=r"diagnostics\.neu_steel: no block of `grid` has methods \['glare'\]"):
        validate(config)
