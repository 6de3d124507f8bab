from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.dev.scale_down_language import fixture, reduced
from lowdata_cpt.language import data, text
from lowdata_cpt.language.config import Hub, Source
from lowdata_cpt.language.tokens import ByteTokens, document, pack, pad, split
from tests.language import tiny


def texts(windows: np.ndarray) -> str:
    ids, _ = split(np.concatenate([row[:-1] for row in windows]))
    return ByteTokens().decode(ids.tolist())


def test_generated_text_is_the_same_everywhere() -> None:
    drawn = [next(text.problems(kind, 3, "x", frozenset())) for kind in text.KINDS]
    told = "\n".join(one.prompt + one.completion for one in drawn)
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "8256024a41672fbf"
    held = [text.held_out("change", (3, 2), seed) for seed in (3, 3, 4)]
    assert held[0] == held[1] != held[2]


@pytest.mark.parametrize("kind", text.KINDS)
def test_answers_are_right(kind: str) -> None:
    drawn = text.problems(kind, 0, "right", frozenset())
    for _ in range(50):
        one = next(drawn)
        assert all(str(number) in one.question for number in one.numbers)
        steps, _, last = one.answer.partition(" #### ")
        for step in steps.split(". "):
            left, right = step.rstrip(".").split(" = ")
            assert eval(left) == int(right)
        assert int(last) == int(right) >= 0


def test_no_feedback_or_test_problem_is_in_the_stream_whatever_its_wording() -> None:
    of = tiny.study()
    sets, held = text.held_out("change", (4, 8), 0)
    assert [len({one.numbers for one in part}) for part in sets] == [4, 8]
    stream = text.problems("change", 0, "stream", held)
    assert held.isdisjoint(next(stream).numbers for _ in range(5000))
    free = text.problems("change", 0, "stream", frozenset())
    assert not held.isdisjoint(next(free).numbers for _ in range(5000)), "the test could not fail"
    splits = tiny.splits_of(of)
    trained = texts(splits.stream) + texts(splits.pretraining)
    held_texts = [texts(np.append(row, -1)[None]) for row in (*splits.feedback, *splits.problems)]
    assert len(held_texts) == 12
    assert not any(one in trained for one in held_texts)
    assert all(prompt not in trained for prompt in splits.prompts)


def test_problems_of_one_last_step_are_held_out_as_a_whole() -> None:
    """With a − b · c in training, a − c · b, or any other with this product, would be no test."""

    def steps(numbers: Iterable[tuple[int, ...]]) -> set[tuple[int, int]]:
        return {(a, b * c) for a, b, c in numbers}

    (tested, taught), without = text.held_out("change", (1024, 1024), 0)  # the embedded study's
    trainable = set(text.numbers_of("change")) - without
    own, others = (steps(one.numbers for one in part) for part in (tested, taught))
    assert len(trainable) > 2000
    assert not (own | others) & steps(trainable)
    assert not own & others
    plain = set(text.numbers_of("change")) - {one.numbers for one in (*tested[::2], *taught[::2])}
    assert own & steps(plain), "the test could not fail"
    assert text.last_step("change", (56, 3, 4)) == text.last_step("change", (56, 6, 2)) == "56 - 12 = 44"


def test_feedback_test_and_prose_are_disjoint() -> None:
    shown, held = text.paragraphs()
    assert len(held) > 50
    assert not set(shown) & set(held)
    splits = tiny.splits_of(tiny.study())
    feedback, problems = ({bytes(row) for row in part} for part in (splits.feedback[:, :100], splits.problems[:, :100]))
    assert (len(feedback), len(problems)) == (8, 4)
    assert not feedback & problems


def test_only_answers_are_targets_and_windows_overlap_by_one() -> None:
    tokens = ByteTokens()
    windows = pack((document(tokens, f"Q{i}:", f" {i}") for i in range(9)), 8, 0)
    ids, target = split(windows)
    assert windows.shape[1] == 9
    assert np.array_equal(ids[:-1, -1], ids[1:, 0])
    first = document(tokens, "Q0:", " 0")
    assert [i for i, good in zip(*split(np.array(first)), strict=True) if good] == [ord(" "), ord("0"), tokens.eos]
    assert not target[ids == tokens.bos[0]].any()


def test_test_problems_of_one_last_step_are_one_group(tmp_path: Path) -> None:
    splits = tiny.splits_of(tiny.study())
    steps = [answer.removesuffix(".").rpartition(". ")[2].partition(" ####")[0] for answer in splits.answers]
    same = np.equal.outer(steps, steps)
    assert (np.equal.outer(splits.groups, splits.groups) == same).all()
    data.write(splits, tmp_path, {})
    assert data.read(tmp_path).groups == splits.groups


def test_more_held_out_problems_than_half_are_refused() -> None:
    with pytest.raises(UserError, match="expected at most"):
        text.held_out("price", (20, 20), 0)


def test_no_document_is_cut_that_fits_in_a_window() -> None:
    tokens, drawn = ByteTokens(), text.problems("gain", 0, "whole", frozenset())
    problems = [next(drawn) for _ in range(20)]
    documents = [document(tokens, one.prompt, one.completion) for one in problems]
    cut, whole = pack(documents, 200, 0), pack(documents, 200, 0, tokens.pad)
    both = [
        [sum(one.prompt + one.completion in texts(row[None]) for row in rows) for one in problems]
        for rows in (cut, whole)
    ]
    assert 0 in both[0], "the test could not fail"
    assert both[1][:18] == [1] * 18  # the last window is not full
    assert texts(whole[:1]).startswith(problems[0].prompt)
    long = pack([[1] * 500, *documents], 200, 0, tokens.pad)
    assert (long[:2] == 1).all()


def test_a_window_without_the_answer_is_refused() -> None:
    with pytest.raises(UserError, match="a problem's answer begins later; expected a longer window"):
        pad([document(ByteTokens(), "Question: how many?", " 4")], ByteTokens(), 10)


def test_other_prose_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PROSE_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"expected 000000000000…, of mujoco-core"):
        text.paragraphs()


def hub() -> Hub:
    return Hub(
        stream=Source(name="AI-MO/NuminaMath-CoT", files="data/train-*.jsonl", question="problem", answer="solution"),
        feedback=Source(name="openai/gsm8k", files="main/train-*.jsonl"),
        test=Source(name="openai/gsm8k", files="main/test-*.jsonl"),
    )


def test_hub_sets_come_from_a_local_folder_without_feedback_in_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOWDATA_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    learner = tiny.study().learners["tiny"]
    of = hub()
    with pytest.raises(UserError, match=r"NuminaMath-CoT/data/train-\*.jsonl: no such file; expected the hub's AI-MO"):
        data.read_source(of.stream)
    fixture(of.stream, tmp_path, ("gain", "earn"), "stream", 40)
    fixture(of.feedback, tmp_path, ("change",), "feedback", 12)
    fixture(of.test, tmp_path, ("left",), "test", 6)
    known = json.loads((tmp_path / "gsm8k/main/train-00000.jsonl").read_text().splitlines()[0])
    stream = tmp_path / "NuminaMath-CoT/data/train-00000.jsonl"
    leak = {"problem": known["question"].upper() + "  ", "solution": "LEAKED"}
    stream.write_text(json.dumps(leak) + "\n" + stream.read_text())
    splits = data.of_hub(of, learner, 12, 6, 2)
    assert "LEAKED" not in texts(splits.stream)
    assert len(splits.prompts) == 6
    assert len(splits.feedback) == 12
    with pytest.raises(UserError, match=r"has no column \['nothing'\]"):
        data.read_source(of.test.model_copy(update={"question": "nothing"}))


def test_a_damaged_split_is_named(tmp_path: Path) -> None:
    splits = tiny.splits_of(tiny.study())
    data.write(splits, tmp_path, {})
    again = data.read(tmp_path)
    assert np.array_equal(again.stream, splits.stream)
    assert again.prompts == splits.prompts
    path = tmp_path / "stream.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"stream.npy: damaged"):
        data.read(tmp_path)


def test_scaled_down_studies_keep_every_learner_and_arm() -> None:
    of = tiny.study()
    assert reduced(of).arms == of.arms
