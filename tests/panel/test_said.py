"""Sentences of the panel: English to whoever prints them, and to a view what its catalogue knows them by."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path
from typing import Any

from workbench import errors
from workbench.errors import PromptError
from workbench.panel.replies import sentence
from workbench.said import Said, listed, said

HOUSE = Path(__file__).parents[2] / "workbench"
PANEL = HOUSE / "panel"
ERRORS = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)
}


def test_a_sentence_is_its_english_and_knows_what_it_was_made_of() -> None:
    text = said("There is no layer %1 of %2: %1.", 7, "a %1 model")
    assert text == "There is no layer 7 of a %1 model: 7."
    assert sentence(text).model_dump() == {
        "text": "There is no layer %1 of %2: %1.", "values": [7, "a %1 model"],
    }  # fmt: skip
    assert sentence("100 %1 of a library").values is None
    error = pickle.loads(pickle.dumps(PromptError(text, said("Choose another one."))))
    assert sentence(error.problem).values == [7, "a %1 model"] and sentence(error.remedy).values == []


def test_a_view_is_told_the_template_and_the_values(driver: Any) -> None:
    driver.compute("rewind", position=3)
    told = driver.view.raw("error")
    assert told["problem"] == {"text": "Nothing is being generated.", "values": []}
    driver.control("remove", version=0, index=9)
    told = driver.view.raw("error")
    assert told["problem"] == {"text": "The plan has no edit number %1.", "values": [9]}
    driver.compute("run", prompt=" ".join("x" * 70))
    told = driver.view.raw("error")
    assert told["problem"] == {"text": "The prompt is too long.", "values": None}, "not the panel's own"
    busy = [message["what"] for message in driver.view.sent if message["type"] == "busy" and message["what"]]
    assert {"text": "running the prompt", "values": []} in busy


def test_a_sentence_in_a_sentence_keeps_what_it_was_made_of() -> None:
    edit = listed([said("ban %1", said("experts %1", "1, 2")), said("all tokens")])
    assert edit == "ban experts 1, 2, all tokens" and isinstance(edit, Said)
    assert sentence(edit).model_dump() == {
        "text": "%1, %2",
        "values": [
            {"text": "ban %1", "values": [{"text": "experts %1", "values": ["1, 2"]}]},
            {"text": "all tokens", "values": []},
        ],
    }


def test_a_plan_speaks_in_sentences(driver: Any) -> None:
    driver.compute("run", prompt="alpha beta gamma")
    for kind in ("ban", "force"):
        driver.control("add", edit={"kind": f"reroute.{kind}", "layers": [1], "experts": [2]})
    plan = driver.view.raw("state")["plan"]
    named = {"text": "expert %1", "values": ["2"]}
    done = {"text": "%1 in layer %2", "values": [{"text": "force %1", "values": [named]}, 1]}
    text = {"text": "%1, %2", "values": [done, {"text": "all tokens", "values": []}]}
    assert plan["edits"][1]["text"] == text
    (warning,) = plan["warnings"]
    assert warning["values"] == ["2", text] and warning["text"].startswith("Expert %1 is both banned")


def test_whatever_the_panel_raises_can_be_translated() -> None:
    """Every error made in the panel is made of ``said("a literal", ...)``."""
    made = 0
    for file in sorted(PANEL.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
                made += 1
                for part in node.args:
                    for one in (part.body, part.orelse) if isinstance(part, ast.IfExp) else (part,):
                        assert ast.unparse(one).startswith("said("), f"{file.name}:{node.lineno}"
    assert made > 30


def test_every_template_is_a_literal_that_a_catalogue_can_list() -> None:
    made = 0
    for file in sorted(HOUSE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "said":
                if file.name == "said.py":
                    continue  # its own joining of parts has no words
                made += 1
                literal = node.args[0]
                assert isinstance(literal, ast.Constant) and isinstance(literal.value, str), file.name
                places = max(map(int, re.findall(r"%(\d)", literal.value)), default=0)
                starred = any(isinstance(one, ast.Starred) for one in node.args)
                assert starred or places == len(node.args) - 1, f"{file.name}:{node.lineno}"
    assert made > 150
