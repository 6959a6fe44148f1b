"""What the papers of the training-free methods claim, as comparisons that the measured rows decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.quality_parts import Outcome, change


@dataclass(frozen=True)
class Claim:
    """``method`` of ``family`` costs less loss than ``other`` (``random``: the controls) at the same budget.

    ``other_family`` is another family, where the claim compares two.
    """

    paper: str
    says: str
    family: str
    method: str
    other: str = "random"
    other_family: str | None = None


_MAP, _ACT, _ENTRIES, _PAIRS = (
    "blocks of the attention map",
    "activations",
    "weights, single entries",
    "weights, 2 of 4",
)

CLAIMS = (
    Claim("Unified Layer Skipping (Liu et al. 2024)", "layers skipped evenly cost less than a contiguous span",
          "blocks", "uniform", "contiguous middle"),
    Claim("Unified Layer Skipping (Liu et al. 2024)", "layers skipped evenly cost less than random ones", "blocks",
          "uniform"),
    Claim("ShortGPT (Men et al. 2024)", "the layers of lowest block influence cost less than random ones", "blocks",
          "lowest block influence"),
    Claim("gamma-MoD (Luo et al. 2024)", "the layers of lowest attention rank cost less than random ones", "blocks",
          "lowest attention rank"),
    Claim("Csordas et al. 2025", "the last layers cost less than random ones", "blocks", "last first"),
    Claim("Attention Is All You Need But You Don't Need All Of It (Tyukin et al. 2024)",
          "the last attentions cost less than random ones", "attention sublayers", "last first"),
    Claim("Attention Is All You Need But You Don't Need All Of It (Tyukin et al. 2024)",
          "the last attentions cost less than the last MLPs", "attention sublayers", "last first", "last first",
          "MLP sublayers"),
    Claim("MindSkip (He et al. 2024)", "tokens past the attention cost less than past the whole block",
          "tokens past the attention, kv compute", "by norm", "by norm", "tokens past the block, kv compute"),
    Claim("Mixture-of-Depths (Raposo et al. 2024), untrained",
          "tokens of large norm need the block more than random ones",
          "tokens past the block, kv compute", "by norm"),
    Claim("gamma-MoD (Luo et al. 2024), untrained",
          "tokens that receive much attention need the block more than random ones",
          "tokens past the block, kv compute", "by attention received, looking ahead"),
    Claim("MuE (Tang et al. 2023), untrained", "leaving early by similarity costs less than leaving at random",
          "early exit, kv copy-last", "by similarity"),
    Claim("D^3 (Fan et al. 2025)", "depth that decays over generated tokens costs less than the same depth at random",
          "depth of generated tokens", "geometric decay"),
    Claim("StreamingLLM (Xiao et al. 2023)", "a window with sinks costs less than the window alone", _MAP,
          "window and sinks", "window"),
    Claim("StreamingLLM (Xiao et al. 2023)", "a window with sinks costs less than random blocks", _MAP, "window and sinks"),
    Claim("Sparse Transformer (Child et al. 2019), untrained", "strided blocks cost less than random ones", _MAP, "strided"),
    Claim("MInference (Jiang et al. 2024)", "vertical-slash costs less than random blocks", _MAP, "vertical-slash"),
    Claim("MInference (Jiang et al. 2024)", "pooled blocks cost less than random ones", _MAP, "pooled"),
    Claim("Double Sparsity (Yang et al. 2024)", "a channel subset finds better blocks than chance", _MAP, "channels"),
    Claim("HiP (Lee et al. 2024)", "a hierarchical search finds better blocks than chance", _MAP, "hierarchical"),
    Claim("Routing Transformer (Roy et al. 2020), untrained", "clusters of keys cost less than random blocks", _MAP,
          "clusters"),
    Claim("TEAL (Liu et al. 2024)", "the smallest activations cost less than random neurons", _ACT, "magnitude"),
    Claim("WINA (Chen et al. 2025)", "weighing activations by their weights costs less than magnitude alone", _ACT,
          "weight-informed", "magnitude"),
    Claim("CATS (Lee et al. 2024)", "the neurons of small gate cost less than random ones of the same work", _ACT, "gate"),
    Claim("Han et al. 2015", "the smallest weights cost less than random ones", _ENTRIES, "magnitude"),
    Claim("Wanda (Sun et al. 2023)", "weighing weights by activations costs less than magnitude alone", _ENTRIES,
          "activation-weighted", "magnitude"),
    Claim("Wanda (Sun et al. 2023)", "the same at 2 of 4", _PAIRS, "activation-weighted", "magnitude"),
    Claim("DSnoT (Zhang et al. 2023)", "exchanging entries costs less than the mask it starts from", _ENTRIES,
          "prune-and-grow", "activation-weighted"),
    Claim("DSnoT (Zhang et al. 2023)", "the same at 2 of 4", _PAIRS, "prune-and-grow", "activation-weighted"),
)  # fmt: skip
"""One comparison each; nothing here is a result."""


def claims(frame: pd.DataFrame, outcomes: dict[Any, Outcome]) -> list[dict[str, Any]]:
    """Each claim at each budget that both sides have: the difference of the loss with its 95 % interval, and a verdict.

    ``as claimed``: lower at every budget and surely so at one; ``not as claimed``: nowhere surely lower, and surely higher
    at one; ``undecided``: no sure difference at all; ``mixed``: anything else.
    """
    return [told for claim in CLAIMS if (told := _decided(claim, frame, outcomes)) is not None]


def _decided(claim: Claim, frame: pd.DataFrame, outcomes: dict[Any, Outcome]) -> dict[str, Any] | None:
    if frame.empty or claim.family not in set(frame["family"]):
        return None
    mine = frame[(frame["family"] == claim.family) & (frame["method"] == claim.method)]
    found = []
    if claim.other == "random":
        found = [(row.budget, row.better, row.better_low, row.better_high) for row in mine.itertuples()]
    else:
        family = claim.other_family or claim.family
        theirs = frame[(frame["family"] == family) & (frame["method"] == claim.other)]
        for row in mine.itertuples():
            near = theirs.iloc[(theirs["budget"] - row.budget).abs().argsort()[:1]] if len(theirs) else theirs
            for other in near.itertuples():
                if abs(other.budget - row.budget) > 0.1:
                    continue
                one = outcomes[claim.family, claim.method, row.number]
                found.append((row.budget, *change(one, [outcomes[family, claim.other, other.number]])))
    if not found:
        return None
    lower = [high < 0 for _, _, _, high in found]
    higher = [low > 0 for _, _, low, _ in found]
    every = all(value < 0 for _, value, _, _ in found)
    if any(lower) and every:
        verdict = "as claimed"
    elif any(higher) and not any(lower):
        verdict = "not as claimed"
    else:
        verdict = "mixed" if any(lower) or any(higher) else "undecided"
    return {
        "paper": claim.paper, "says": claim.says, "verdict": verdict,
        "differences": [dict(zip(("budget", "nats", "low", "high"), one, strict=True)) for one in found],
    }  # fmt: skip
