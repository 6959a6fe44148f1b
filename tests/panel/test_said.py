"""Sentences of the panel: English to whoever prints them, and to a view what its catalogue knows them by."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path
from typing import Any

from workbench import errors
from workbench.errors import PromptError
from workbench.panel.said import said, sentence

PANEL = Path(__file__).parents[2] / "workbench" / "panel"
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
    told = next(message for message in reversed(driver.view.sent) if message["type"] == "error")
    assert told["problem"] == {"text": "Nothing is being generated.", "values": []}
    driver.control("remove", version=0, index=9)
    told = next(message for message in reversed(driver.view.sent) if message["type"] == "error")
    assert told["problem"] == {"text": "The plan has no edit number %1.", "values": [9]}
    driver.compute("run", prompt=" ".join("x" * 70))
    told = next(message for message in reversed(driver.view.sent) if message["type"] == "error")
    assert told["problem"] == {"text": "The prompt is too long.", "values": None}, "not the panel's own"
    busy = [message["what"] for message in driver.view.sent if message["type"] == "busy" and message["what"]]
    assert {"text": "running the prompt", "values": []} in busy


def test_whatever_the_panel_raises_can_be_translated() -> None:
    """Every error made in the panel is made of ``said("a literal", ...)``, which catalogues can list."""
    made = 0
    for file in sorted(PANEL.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id in ERRORS:
                    made += 1
                    for part in node.args:
                        for one in (part.body, part.orelse) if isinstance(part, ast.IfExp) else (part,):
                            assert ast.unparse(one).startswith("said("), f"{file.name}:{node.lineno}"
                if node.func.id == "said":
                    literal = node.args[0]
                    assert isinstance(literal, ast.Constant) and isinstance(literal.value, str), file.name
                    places = max(map(int, re.findall(r"%(\d)", literal.value)), default=0)
                    starred = any(isinstance(one, ast.Starred) for one in node.args)
                    assert starred or places == len(node.args) - 1, f"{file.name}:{node.lineno}"
    assert made > 30
