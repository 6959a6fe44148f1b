"""A command line to call in this process, in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from workbench.cli import app

Call = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(folder: Path) -> Call:
    """``call("run", "text", "--ban", "3:5")`` -> what came out and the exit code; an unforeseen error is raised."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), catch_exceptions=False)

    return run


def _save(family: str, target: Path) -> Path:
    """A tiny random model with a byte tokenizer that splits at every character, as a folder to open by path."""
    from tiny_models import CONFIGS, build_tiny
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    size = CONFIGS[family]["vocab_size"]
    letters = [chr(n) for n in range(ord("a"), ord("z") + 1)] + ["Ġ"]  # Ġ is the byte-level name of the space
    vocabulary = {letter: n for n, letter in enumerate(letters)} | {
        f"<{n}>": n for n in range(len(letters), size)
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=f"<{size - 1}>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(target)
    build_tiny(family).save_pretrained(target)
    return target


@pytest.fixture(scope="session")
def moe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny OLMoE: three layers of eight experts, two a token."""
    return _save("olmoe", tmp_path_factory.mktemp("olmoe"))


@pytest.fixture(scope="session")
def dense_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama: no router anywhere."""
    return _save("llama", tmp_path_factory.mktemp("llama"))
