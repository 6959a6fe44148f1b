"""The tokenizer: byte-level BPE trained on the corpus, digits kept single, one token for every task symbol."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data.recipe import folders
from workbench.tasks import symbols, wording

SIZE = 2560
PAD = "<blank>"
CHARACTERS_PER_DOMAIN = 1_000_000


def train_tokenizer(documents: pd.DataFrame, folder: Path) -> None:
    """Trains on an equal share of every domain and saves what `AutoTokenizer` loads.

    Headings and other task wording are repeated in the training text, so that they cost few tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - len(symbols.ALL),
        special_tokens=[PAD, symbols.END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_texts(documents), trainer)
    tokenizer.add_tokens([AddedToken(symbol, normalized=False) for symbol in symbols.ALL])
    if tokenizer.get_vocab_size() != SIZE:
        raise ValueError(f"the tokenizer has {tokenizer.get_vocab_size()} entries instead of {SIZE}")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=symbols.END, model_max_length=512
    ).save_pretrained(folder)


def training_texts(documents: pd.DataFrame) -> list[str]:
    """Texts for the tokenizer: a share of every domain, and the wording of the tasks."""
    texts: list[str] = []
    for _, group in documents.groupby("domain"):
        size = 0
        for text in group["text"].sample(frac=1, random_state=0):
            texts.append(text)
            size += len(text)
            if size > CHARACTERS_PER_DOMAIN:
                break
    headings = [
        f"{heading}:" for row in wording.HEADINGS.values() for heading in row[: wording.SHIFT_VARIANT]
    ]
    asks = [one.ask for one in wording.WORDINGS[: wording.SHIFT_VARIANT]]
    return texts + 500 * headings + 5_000 * asks


def load_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the built corpus."""
    return AutoTokenizer.from_pretrained(folders.corpus() / "tokenizer")
