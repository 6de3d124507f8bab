from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from lowdata_cpt.cli import main
from lowdata_cpt.core.io import write_arrays, write_json
from lowdata_cpt.dev.scale_down_language import run as run_scaled_down
from lowdata_cpt.language import evaluation, jobs, models, plan, results, tokens
from lowdata_cpt.language.config import ARMS, ByteModel, load, validate
from lowdata_cpt.language.evaluation import final_number
from lowdata_cpt.reproduce import verify_language
from lowdata_cpt.reproduce.packed_cells import packed_cells
from tests.language import tiny
from tests.workflow.tiny import ROOT, planned, run, snakemake, tiny_study


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("8 * 7 = 56. 90 - 56 = 34. #### 34", "34"),
        ("#### 1,250.00 dollars, not 3", "1250"),
        ("so the answer is -07.50.", "-7.5"),
        ("0.5 or rather #### .", "0.5"),
        ("-0", "0"),
        ("none", None),
    ],
)
def test_final_numbers(said: str, number: str | None) -> None:
    assert final_number(said) == number


def test_identity_names_what_a_job_depends_on_and_no_more() -> None:
    of = tiny.study()
    cell = plan.Cell("tiny", "v_pretraining_text", 1)
    other = tiny.study(lr=1e-3)
    assert plan.continue_params(of, cell) != plan.continue_params(other, cell)
    for arm in ("next_token", "uniform_topk"):
        plain = plan.Cell("tiny", arm, 1)
        assert plan.continue_params(of, plain) == plan.continue_params(other, plain)
    assert plan.base_params(of, "tiny") == plan.base_params(other, "tiny")
    assert plan.data_params(of, "tiny")["raw"] == "2c07abc80e80b85ba1d1eec4a6d902f229c613caeec4ea37d3295a08775071f6"


@pytest.mark.parametrize("learner", ["qwen25_05b_lora", "qwen15_05b/"])
def test_the_paper_study_scaled_down(learner: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Qwen2's architecture with random weights, hub sets in a local folder, LoRA and full branch, bf16."""
    run_scaled_down(load(ROOT / "config/language_paper.yaml"), f"{learner.rstrip('/')}/v_pretraining_text")
    assert "all 1 cell types ran" in capsys.readouterr().out


def finished(folder: Path, gain: float, worth: float = 1.0) -> Path:
    """Write the tables of a study of three seeds whose method answers a share `gain` more problems.

    V is always positive; less that of the uniform control it has the sign of `worth` at seven of eight updates.
    """
    of = tiny.raw() | {"seeds": [0, 1, 2]}
    write_json(folder / "study.json", json.loads(validate(of).model_dump_json(exclude={"resources"})))
    draw, outcomes, rows = np.random.default_rng(0), {}, []
    for arm in ("base", *ARMS):
        for seed in (0,) if arm == "base" else (0, 1, 2):
            right = draw.random(400) < 0.3 + gain * (arm == "v_pretraining_text")
            for metric in results.METRICS:
                outcomes[f"tiny/{arm}/s{seed}/{metric}"] = right if metric == "pass_at_1" else np.full(8, 0.5)
                value = outcomes[f"tiny/{arm}/s{seed}/{metric}"].mean()
                cell = {"learner": "tiny", "arm": arm, "seed": seed, "tokens_seen": 9}
                cell["train_seconds"] = 30.0 if arm == "v_pretraining_text" else 20.0
                rows.append({"study": "x", **cell, "metric": metric, "value": value})
    pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)
    outcomes["tiny/groups"] = np.array([], dtype=np.int32)
    write_arrays(folder / "outcomes.npz", outcomes)
    same = {
        "learner": "tiny",
        "arm": "v_pretraining_text",
        "seed": 0,
        "cosine": 0.1,
        "meta_loss": 1.0,
        "lr": 0.1,
        "alpha": 0.2,
    }
    values = [
        {**same, "step": i, "tokens_seen": i, "value": 9 + v, "value_uniform": 9.0, "value_one_hot": 10.5}
        | {"predicted": 0.1 * (9 + v), "realised": v}
        for i, v in enumerate((-1.0, *(worth * part for part in (1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 4.0))))
    ]
    pd.DataFrame(values).to_csv(folder / "value.csv", index=False)
    return folder


def claims_file(path: Path) -> Path:
    same = {"statement": "Better.", "source": "here", "learner": "tiny", "arm": "v_pretraining_text"}
    claim = same | {"id": "a", "metric": "pass_at_1"}
    others = [claim | more for more in ({"id": "b", "learner": "huge"}, {"id": "c", "direction": "worse"})]
    others += [claim | {"id": "d", "metric": "mmlu"}, claim | {"id": "e", "published": False}]
    others.append(claim | {"id": "f", "direction": "not_worse", "paper_value": 0.1, "tolerance": 1.0})
    path.write_text(yaml.safe_dump({"claims": [claim, *others]}))
    return path


def test_gains_are_paired_and_claims_judged(tmp_path: Path) -> None:
    folder = finished(tmp_path, 0.4)
    results.statistics(folder)
    table = pd.read_csv(folder / "statistics.csv").set_index(["arm", "reference", "metric"])
    row = table.loc[("v_pretraining_text", "next_token", "pass_at_1")]
    assert row["low"] < row["gain"] < row["high"]
    assert row["gain"] == pytest.approx(40, abs=8)
    # The noncentrality of 80 % power at .05 is 2.8 where the degrees of freedom are many, more where they are few.
    assert row["detectable"] > 2.8 * (row["high"] - row["low"]) / (2 * 4.31)
    assert row["covers"] == "seeds and test images"
    assert table.loc[("uniform_topk", "next_token", "answer_nll")]["gain"] == 0
    value = pd.read_csv(folder / "designer.csv").iloc[0]
    assert (value["updates"], value["share_positive"], value["pearson_r"]) == (8, 1.0, 1.0)
    assert (value["share_above_uniform"], value["share_above_one_hot"]) == (0.875, 0.625)
    assert (value["late_above_one_hot"], value["rank_r"]) == (0.75, 1.0)
    assert table.loc[("v_pretraining_text", "base", "prose_accuracy")]["gain"] == 0
    results.claims(folder, claims_file(tmp_path / "claims.yaml"))
    verdicts = {one["id"]: one["verdict"] for one in json.loads((folder / "claims.json").read_text())}
    ours = {"c": "not reproduced", "d": "not run", "e": "yes", "f": "reproduced"}
    assert verdicts == {"a": "reproduced", "b": "not run"} | ours
    said = results.headline(folder)
    assert "V-pretraining against next token, Pass@1" in said
    assert "V-pretraining trained 1.50 times as long as next token, the measurement of L_down's fall included" in said
    assert "uniform top-K trained 1.00 times as long as next token\n" in said
    assert "NLL of" not in said.replace("of NLL:", "")
    for told in (said, (folder / "claims.md").read_text()):
        assert "not another start" in told
        assert "not equal compute or labels" in told
        assert "where φ starts, on 87.5% of 8 updates, and above that of one-hot targets" in told
        assert (
            "(worth more than next-token targets) on 62.5%; in the second half on 75.0%, at a mean α of 0.200" in told
        )


def test_correlation_is_within_seeds_and_without_the_schedule() -> None:
    """Two seeds of different level under a falling rate: pooled and undivided they correlate, V and fall do not."""
    draw, rows = np.random.default_rng(0), []
    for seed, level in ((0, 1.0), (1, 5.0)):
        for rate in np.linspace(1.0, 0.0, 200):
            worth, fall = rate * (level + draw.normal(0, 0.1, 2))
            rows.append({"seed": seed, "lr": rate, "predicted": worth, "realised": fall})
    values = pd.DataFrame(rows)
    assert values["predicted"].corr(values["realised"]) > 0.9, "the test could not fail"
    assert abs(results.within_seed(values)) < 0.15
    assert results.within_seed(values.assign(realised=2 * values["predicted"])) == pytest.approx(1.0)
    assert np.isnan(results.within_seed(values[:2]))
    shock = pd.DataFrame([{"seed": seed, "lr": 1.0, "predicted": 100.0, "realised": 900.0} for seed in (0, 1)])
    shocked = pd.concat([values, shock])
    assert results.within_seed(shocked) > 0.9
    assert abs(results.within_seed(shocked, ranks=True)) < 0.2


def test_the_predicted_fall_is_of_the_targets_that_theta_got() -> None:
    parts = {"value": 3.0, "value_one_hot": 2.0, "lr": 0.5, "realised": 1.0}
    log = pd.DataFrame(
        [
            {"step": step, "tokens_seen": step, "part": part, "value": of}
            for step in (0, 8, 16)
            for part, of in parts.items()
        ]
    )
    assert list(results._values(log, burn_in=16)["predicted"]) == [1.0, 1.0, 1.5]


def test_accuracy_is_the_share_of_targets_that_are_the_likeliest_token() -> None:
    """Of each row, and of its targets alone; the mean NLL beside it."""
    of = tiny.study()
    model = models.build(of.learners["tiny"].model, 128).eval()  # type: ignore[arg-type]
    windows = tiny.splits_of(of).problems
    found = evaluation.scored(model, windows, 3)
    ids, target = tokens.split(np.array(windows))
    for row, (one, where) in enumerate(zip(ids, target, strict=True)):
        logits = models.logits_of(model, torch.from_numpy(one[None, :-1]).long())[0].detach()
        at = where[1:]
        assert found[0][row] == pytest.approx(np.mean((logits.argmax(-1).numpy() == one[1:])[at]))
        chosen = logits.log_softmax(-1).numpy()[np.arange(len(one) - 1), one[1:]]
        assert found[1][row] == pytest.approx(-np.mean(chosen[at]), rel=1e-5)
    model.get_output_embeddings().weight.data.zero_()  # every token as likely: the first, 0, is no text's
    assert not evaluation.scored(model, windows, 3)[0].any()
    assert evaluation.scored(model, windows, 3)[1] == pytest.approx(np.log(259), rel=1e-5)


def test_a_designer_that_did_not_act_has_no_verdict(tmp_path: Path) -> None:
    folder = finished(tmp_path, 0.4, worth=-1.0)
    results.claims(folder, claims_file(tmp_path / "claims.yaml"))
    found = {one["id"]: one for one in json.loads((folder / "claims.json").read_text())}
    assert [found[name]["verdict"] for name in "ae"] == ["budget too small", "open"]
    assert "V above that of uniform top-K targets, where φ starts, on 0 of 8 updates" in found["a"]["reason"]
    assert (pd.read_csv(folder / "value.csv")["value"] > 0).all()


def test_the_projects_claims_are_valid_and_the_papers_are_not_run_at_this_scale(tmp_path: Path) -> None:
    folder = finished(tmp_path, 0.0)
    results.claims(folder)
    found = {one["id"]: one for one in json.loads((folder / "claims.json").read_text())}
    published = [one for one in found.values() if one["source"].startswith("V-pretraining")]
    assert len(published) == 10
    assert {one["verdict"] for one in published} == {"not run"}
    assert all(("no learner" in one["reason"]) for one in published)
    assert found["main.qwen15_4b"]["paper_value"] == 2.5


def test_problems_of_one_last_step_are_redrawn_together(tmp_path: Path) -> None:
    def half_width(groups: np.ndarray) -> float:
        draw = np.random.default_rng(1)
        right = [np.repeat(draw.random(100) < share, 4) for share in (0.3, 0.7)]
        cells = [("next_token", 0), ("next_token", 1), ("uniform_topk", 0), ("uniform_topk", 1)]
        outcomes = {f"tiny/{arm}/s{seed}/pass_at_1": right[arm != "next_token"] for arm, seed in cells}
        scores = pd.DataFrame([{"learner": "tiny", "arm": arm, "seed": seed} for arm, seed in cells])
        given = {**outcomes, "tiny/groups": groups}
        found, _ = results.gain(scores, given, "tiny", "uniform_topk", "next_token", "pass_at_1")
        return found.high - found.estimate

    alone, together = half_width(np.array([], dtype=int)), half_width(np.arange(400) // 4)
    assert together > 1.5 * alone  # four copies of each outcome: four times the variance of the problems' share


def test_a_report_of_another_kind_of_study_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["language", "report", str(ROOT / "results/quick")]) == 2
    assert "quick/study.json: of a study of images; expected one of `kind: language`" in capsys.readouterr().err
    assert main(["language", "report", str(tmp_path / "none")]) == 2
    assert "none/study.json: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        *((name, b"", "not a CSV table") for name in ("scores.csv", "value.csv")),
        *((name, bytes(range(256)), "not a CSV table") for name in ("scores.csv", "value.csv")),
        *((name, b"a,b\n1,2\n", "missing column learner") for name in ("scores.csv", "value.csv")),
        (
            "scores.csv",
            b"learner,arm,seed,tokens_seen,metric,value,train_seconds\ntiny,base,0,9,a,x,1\n",
            "is not a number",
        ),
        ("scores.csv", b"learner,arm,seed,tokens_seen,metric,value,train_seconds\ntiny,b,0,9,a,1,1\n", "arm 'b'"),
        ("scores.csv", b"learner,arm,seed,tokens_seen,metric,value,train_seconds\n", "no row of tiny/next_token"),
    ],
)
def test_a_damaged_table_is_one_sentence(
    name: str, content: bytes, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished(tmp_path, 0.1) / name).write_bytes(content)
    assert main(["language", "report", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert name in said
    assert expected in said


def test_outcomes_of_another_study_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_arrays(finished(tmp_path, 0.1) / "outcomes.npz", {"other": np.zeros(3)})
    assert main(["language", "report", str(tmp_path)]) == 2
    assert "outcomes.npz: has no tiny/next_token/s0/pass_at_1" in capsys.readouterr().err


def test_a_command_for_studies_of_images_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnostics", "--study", str(ROOT / "config/language.yaml"), "--cell", "a/b/c/n1/s0"]) == 2
    assert "a study of kind 'language', expected one of images" in capsys.readouterr().err


CONFIG = ["--configfile", "config/tiny.yaml"]
TWO_ARMS = tiny.raw() | {"study": "tiny", "seeds": [0, 1], "arms": ["next_token", "v_pretraining_text"]}


def checkout(folder: Path) -> Path:
    """Return a project with a language study of two arms."""
    tiny_study(folder)
    (folder / "config/tiny.yaml").write_text(yaml.safe_dump(TWO_ARMS))
    return folder


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = checkout(tmp_path_factory.mktemp("ended") / "p")
    snakemake(folder, *CONFIG)
    return folder


@pytest.mark.slow
def test_a_tiny_study_end_to_end(ended: Path, tmp_path: Path) -> None:
    """Through Snakemake: every file is there, a second run does nothing, and a changed number is found."""
    root = ended / "results/tiny"
    for name in ("scores.csv", "statistics.csv", "claims.md", "figures/learning.png", "figures/value.csv"):
        assert (root / name).stat().st_size > 0, name
    assert "V-pretraining against next token" in run(ended, "lowdata-cpt", "headline", "results/tiny").stdout
    assert planned(ended, *CONFIG) == {}
    assert ", 0 failed" in run(ended, "lowdata-cpt", "verify", "--study", "tiny").stdout
    changed = tmp_path / "changed"
    shutil.copytree(root, changed)
    table = pd.read_csv(changed / "statistics.csv")
    table.assign(gain=table["gain"] + 0.1).to_csv(changed / "statistics.csv", index=False)
    rows = verify_language.check_report(changed, tmp_path)
    assert [Path(row.subject).name for row in rows if row.verdict != "held"] == ["statistics.csv"]


@pytest.mark.slow
def test_finished_cells_go_on_elsewhere(ended: Path, tmp_path: Path) -> None:
    """Packed with the start's weights, restored in another checkout, and told as far as whole seeds go."""
    elsewhere, root = checkout(tmp_path / "p"), Path("results/tiny")

    def said(command: str, folder: Path = elsewhere) -> str:
        return run(folder, "lowdata-cpt", command, "--study", "tiny").stdout

    archives = [Path(path).name for path in said("pack", ended).split()]
    assert archives == ["tiny-base.zip", "tiny-next_token.zip", "tiny-v_pretraining_text.zip"]
    shutil.copytree(ended / root / "finished", elsewhere / root / "finished")
    assert "5 of 5 cells restored" in said("restore")
    assert planned(elsewhere, *CONFIG) == {"language_collect": 1, "language_report": 1}
    longer = tiny.changed({"learners.tiny.pretraining.steps": 9})["learners"]
    (elsewhere / "config/tiny.yaml").write_text(yaml.safe_dump(TWO_ARMS | {"learners": longer}))
    assert planned(elsewhere, *CONFIG)["language_base"] == 1
    (elsewhere / "config/tiny.yaml").write_text(yaml.safe_dump(TWO_ARMS))
    assert "5 of 5 cells" in said("partial")
    assert (elsewhere / root / "scores.csv").read_bytes() == (ended / root / "scores.csv").read_bytes()
    (elsewhere / root / "cells/tiny/next_token/s1/evaluation.json").unlink()
    assert "3 of 5 cells" in said("partial")
    assert set(pd.read_csv(elsewhere / root / "scores.csv")["seed"]) == {0}


def test_of_kept_models_only_the_starts_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(yaml.safe_dump(TWO_ARMS | {"study": "x", "keep_models": True}))
    paths = plan.Paths("results/x")
    for cell in (plan.base_of("tiny"), plan.Cell("tiny", "next_token", 0)):
        (paths.cell(cell) / "export/t0").mkdir(parents=True)
        (paths.cell(cell) / "export/t0" / models.MODEL).touch()
    found = {cell.name: cell.files for cell in packed_cells("x.yaml")}
    with_weights = [name for name, files in found.items() if any(models.MODEL in file for file in files)]
    assert len(found) == 5
    assert with_weights == ["tiny/base/s0"]


def test_an_interrupted_evaluation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    of, paths, cell = (
        tiny.study(training={"steps": 2}, every=1),
        plan.Paths("results/x"),
        plan.Cell("tiny", "next_token", 1),
    )
    assert isinstance(of.learners["tiny"].model, ByteModel)
    jobs.make_data(plan.data_params(of, "tiny"), "tiny", paths)
    jobs.make_base(plan.base_params(of, "tiny"), "tiny", paths, device="cpu", checkpoint_seconds=300.0)
    jobs.continue_cell(plan.continue_params(of, cell), cell, paths, device="cpu")
    original, calls = evaluation.evaluate, []

    def dying(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(evaluation, "evaluate", dying)
    with pytest.raises(KeyboardInterrupt):
        jobs.evaluate_cell(plan.evaluate_params(of, cell), cell, paths, device="cpu")
    jobs.evaluate_cell(plan.evaluate_params(of, cell), cell, paths, device="cpu")
    assert len(calls) == 3
    found = json.loads((paths.cell(cell) / "evaluation.json").read_text())["milestones"]
    assert list(found) == ["256", "512"]
