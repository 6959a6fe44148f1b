"""Tasks: their answers against independent solvers, their splits, choices, wording and determinism."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from workbench import tasks
from workbench.tasks.item import CHOICES, SPLITS, TASKS, Item, TaskError, withdrawn
from workbench.tasks.symbols import ALL, ANSWER_MARK
from workbench.tasks.wording import HEADINGS, WORDINGS

LEVELS = [(name, level) for name in tasks.names() for level in range(1, len(TASKS[name].levels) + 1)]


def solve(task: str, prompt: str) -> str:
    """The answer found from the prompt's text alone, without the generators' code."""
    body = prompt.split(":", 1)[1].removesuffix(ANSWER_MARK)
    found = re.findall(r"</?\w+>", body)
    numbers = [int(symbol[1:-1]) for symbol in found if symbol[1:-1].isdigit()]
    if task == "recall":
        value = re.search(r"<\d+>", body).start()
        query = "".join(found[-body[:value].count("<") :])
        return re.search(re.escape(query) + r"\W*(<\d+>)", body)[1]
    if task == "two_hop":
        links = dict(zip(found[0:-1:2], found[1:-1:2], strict=True))
        return links[links[found[-1]]]
    if task == "lexicon":
        phrases = [
            (re.findall(r"<\w+>", left), re.findall(r"<\w+>", right))
            for left, right in re.findall(r"((?:<\w+>)+)=((?:<\w+>)+)", body)
        ]
        meanings = [set(right) for left, right in phrases if found[-1] in left]
        (meaning,) = set.intersection(*meanings)
        return meaning
    if task == "rule":
        *shown, asked = numbers
        pairs = list(zip(shown[::2], shown[1::2], strict=True))
        fits = {
            (a * asked + c) % 64
            for a in (1, 63, 2, 3, 5)
            for c in range(64)
            if all((a * x + c) % 64 == y for x, y in pairs)
        }
        return f"<{fits.pop()}>" if len(fits) == 1 else ""
    if task == "most_frequent":
        (winner, most), (_, second) = Counter(found).most_common(2)
        return winner if most > second else ""
    if task == "kth_smallest":
        *listed, rank = numbers
        return f"<{sorted(listed)[rank - 1]}>"
    if task == "modular_sum":
        return f"<{sum(numbers) % 61}>"
    if task == "stack_top":
        text = "".join(found)
        while (shorter := re.sub(r"<(\w+)></\1>", "", text)) != text:
            text = shorter
        return "</" + re.findall(r"<(\w+)>", text)[-1] + ">"
    if task == "addition":
        return str(sum(int(digits[::-1]) for digits in re.findall(r"\d+", body)))[::-1]
    assert task == "sorting"
    return "".join(f"<{number}>" for number in sorted(numbers))


@pytest.mark.slow
@pytest.mark.parametrize(("task", "level"), LEVELS)
def test_answers_agree_with_a_solver_that_reads_only_the_prompt(task: str, level: int) -> None:
    for split in ("validation", "shift"):
        items = tasks.load(task, split=split, level=level, n=30)
        solved = [solve(task, prompt) for prompt in items["prompt"]]
        for right, answer in zip(items["answer"], solved, strict=True):
            assert answer in (right, "") and (answer == right or task == "rule")
        assert sum(answer == right for right, answer in zip(items["answer"], solved, strict=True)) >= 24


@pytest.mark.parametrize("task", tasks.names())
def test_items_have_eight_different_choices_with_the_answer_anywhere(task: str) -> None:
    items = tasks.load(task, split="validation", level=1, n=120)
    assert list(items.columns) == [
        "prompt",
        "answer",
        "choices",
        "task",
        "level",
        "variant",
        "language",
        "split",
    ]
    for choices, answer in zip(items["choices"], items["answer"], strict=True):
        assert len(set(choices)) == len(choices) == CHOICES
        assert answer in choices
    places = Counter(list(c).index(a) for c, a in zip(items["choices"], items["answer"], strict=True))
    assert set(places) == set(range(CHOICES))
    assert all(prompt.endswith(ANSWER_MARK) for prompt in items["prompt"])


@pytest.mark.parametrize("task", tasks.names())
def test_every_task_has_six_levels_of_growing_prompts_and_all_wordings(task: str) -> None:
    assert len(TASKS[task].levels) >= 6
    items = tasks.load(task, split="validation", n=20)
    length = items.groupby("level")["prompt"].agg(lambda prompts: prompts.str.len().mean())
    assert length.iloc[-1] > length.iloc[0]
    assert set(items["variant"]) == {0, 1, 2, 3, 4}
    assert set(items["language"]) == {"en", "fr", "de", "es", "ru"}


def test_single_token_answers_come_from_at_least_32_symbols() -> None:
    for name in tasks.names():
        if not TASKS[name].free_form:
            answers = set(tasks.load(name, split="train", level=2, n=400)["answer"])
            assert answers <= set(ALL)
            assert len(answers) >= 30


def test_loading_is_deterministic_and_seeds_differ() -> None:
    first, again = (tasks.load("recall", split="test", level=2, n=50) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    other = tasks.load("recall", split="test", level=2, n=50, seed=1)
    assert not set(first["prompt"]) & set(other["prompt"])


def test_a_shorter_load_is_the_beginning_of_a_longer_one() -> None:
    longer = tasks.load("sorting", split="validation", level=1, n=40)
    pd.testing.assert_frame_equal(tasks.load("sorting", split="validation", level=1, n=10), longer[:10])


def test_splits_follow_from_content_alone_and_have_their_shares() -> None:
    rng = random.Random(5)
    task = TASKS["two_hop"]
    items = [task.draw(rng, task.parameters(2)) for _ in range(2_000)]
    shares = {
        split: sum(item.belongs_to(split) for item in items) / len(items) for split in ("train", "test")
    }
    assert 0.55 < shares["train"] < 0.65
    assert 0.16 < shares["test"] < 0.24
    assert all(
        sum(item.belongs_to(s) for s in ("train", "reference", "validation", "test")) == 1 for item in items
    )


def test_what_the_demo_model_was_asked_by_drills_is_held_out_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked_by_drills() -> list[Item]:
        items = [
            Item(
                "stack_top",
                tuple(re.findall(r"</?\w+>", prompt.split(":", 1)[1].removesuffix(ANSWER_MARK))),
                "",
                "",
            )
            for prompt in tasks.load("stack_top", split="test", level=2)["prompt"]
        ]
        return [item for item in items if item.digest() in asked]

    asked = withdrawn()
    assert not asked_by_drills()
    monkeypatch.setattr("workbench.tasks.item.withdrawn", frozenset)
    held_out_by_digest = asked_by_drills()
    assert len(held_out_by_digest) == 35
    monkeypatch.undo()
    splits = [split for item in held_out_by_digest for split in SPLITS if item.belongs_to(split)]
    assert splits == ["train"] * 35


@pytest.mark.slow
@pytest.mark.parametrize("task", tasks.names())
def test_no_content_is_in_two_splits_and_none_twice_in_a_level(task: str) -> None:
    contents: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        items = tasks.load(task, split=split, level=1, n=200)
        bodies = [wordless(task, row.prompt, row.variant) for row in items.itertuples()]
        assert len(set(bodies)) == len(bodies)
        contents[split] = set(bodies)
    assert not contents["train"] & contents["test"]
    assert not contents["train"] & contents["validation"]


def wordless(task: str, prompt: str, variant: int) -> str:
    """The content of a prompt without heading, separators and the word that asks."""
    body = prompt.removeprefix(HEADINGS[task][variant] + ":").replace(WORDINGS[variant].ask, "?")
    return re.sub(r"[,;&|/ ](?=[<\d])", "", body)


@pytest.mark.parametrize("task", tasks.names())
def test_siblings_ask_something_else_over_the_same_facts_and_are_right(task: str) -> None:
    rng = random.Random(3)
    for level in range(1, len(TASKS[task].levels) + 1):
        item = TASKS[task].draw(rng, TASKS[task].parameters(level))
        for other in TASKS[task].siblings(item, rng)[:5]:
            assert other.facts == item.facts
            assert other.query != item.query
            assert solve(task, other.prompt(1)) == other.answer


def test_the_shift_split_is_longer_and_worded_as_no_other() -> None:
    shift = tasks.load("recall", split="shift", level=1, n=20)
    plain = tasks.load("recall", split="test", level=1, n=20)
    assert set(shift["variant"]) == {5}
    assert shift["prompt"].str.count("<").min() > plain["prompt"].str.count("<").max()
    assert shift["prompt"].str.startswith("Look up").all()


@pytest.mark.parametrize("task", tasks.names())
def test_the_same_items_come_in_every_wording(task: str) -> None:
    worded = [tasks.load(task, split="validation", level=2, n=12, variant=variant) for variant in range(5)]
    for variant, items in enumerate(worded):
        assert (items["variant"] == variant).all()
        assert items["answer"].tolist() == worded[0]["answer"].tolist()
        assert items["choices"].tolist() == worded[0]["choices"].tolist()
        assert [solve(task, p) for p in items["prompt"]] == [solve(task, p) for p in worded[0]["prompt"]]
        assert [wordless(task, p, variant) for p in items["prompt"]] == [
            wordless(task, p, 0) for p in worded[0]["prompt"]
        ]
    mixed = tasks.load(task, split="validation", level=2, n=12)
    assert [worded[row.variant]["prompt"][n] for n, row in enumerate(mixed.itertuples())] == mixed[
        "prompt"
    ].tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "nonsense"}, "no task named 'nonsense'"),
        ({"task": "recall", "split": "dev"}, "no split named 'dev'"),
        ({"task": "recall", "level": 99}, "no level 99"),
        ({"task": "recall", "n": 0}, "0 items"),
        ({"task": "recall", "variant": 5}, "wording 5"),
        ({"task": "recall", "split": "shift", "variant": 0}, "split shift do not come in wording 0"),
        ({"task": "modular_sum", "level": 1, "split": "validation", "n": 50_000}, "different items"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(arguments: dict, message: str) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        tasks.load(**arguments)
    assert caught.value.remedy.endswith(".")


def test_describe_lists_every_level_with_its_chance() -> None:
    table = tasks.describe()
    assert len(table) == len(LEVELS)
    assert (table["chance"] == 1 / 8).all()


def test_score_hands_items_and_plan_to_the_bench() -> None:
    class Bench:
        def evaluate(self, items: pd.DataFrame, plans: list, score: str) -> tuple:
            return len(items), plans, score

    items = tasks.load("rule", split="validation", level=1, n=5)
    assert tasks.score(Bench(), items, plan="a plan") == (5, ["a plan"], "choices")


def test_two_word_keys_are_told_apart_only_by_both_words() -> None:
    for prompt in tasks.load("recall", split="validation", level=8, n=10, variant=0)["prompt"]:
        pairs = re.findall(r"(<[a-z]+>)(<[a-z]+>)<\d+>", prompt)
        assert len(set(pairs)) == len(pairs) == 16
        assert max(Counter(first for first, _ in pairs).values()) > 1
        assert max(Counter(second for _, second in pairs).values()) > 1


def test_word_order_is_mixed_only_where_the_level_says_so() -> None:
    for level, mixed in ((3, False), (5, True)):
        kept = []
        for prompt in tasks.load("lexicon", split="validation", level=level, n=5, variant=0)["prompt"]:
            phrases = [part.split("=") for part in prompt.split(":")[1].split(". ")[0].split(",")]
            sides = [[re.findall(r"<\w+>", side) for side in phrase] for phrase in phrases]
            places = {}
            for left, right in sides:
                for word, meaning in zip(left, right, strict=True):
                    places.setdefault(word, set()).add(meaning)
            kept.append(all(len(found) == 1 for found in places.values()))
        assert all(kept) != mixed


def test_usable_levels_are_read_from_the_models_folder(tmp_path: Path) -> None:
    frozen = tasks.usable()
    assert list(frozen.columns) == ["task", "level", "items", "accuracy", "corrected"]
    assert frozen["corrected"].between(0.3, 0.8).all() and frozen["task"].nunique() >= 5
    assert frozen["corrected"].to_numpy() == pytest.approx((frozen["accuracy"] - 1 / 8) / (7 / 8), abs=1e-3)
    with pytest.raises(TaskError, match="no levels.json"):
        tasks.usable(tmp_path)
    row = {"task": "recall", "level": 1, "parameters": [4, 1], "items": 9, "accuracy": 0.5, "corrected": 0.43}
    (tmp_path / "levels.json").write_text(json.dumps({"levels": [row]}))
    assert tasks.usable(tmp_path)[["task", "level"]].to_numpy().tolist() == [["recall", 1]]
    for wrong in ({"parameters": [5, 1]}, {"level": 99}, {"task": "riddles"}):
        (tmp_path / "levels.json").write_text(json.dumps({"levels": [row | wrong]}))
        with pytest.raises(TaskError, match="written for another level"):
            tasks.usable(tmp_path)
