"""How many bits a chosen expert tells about a label, beside what shuffled labels would seem to tell.

The plug-in estimate of mutual information is above zero for any finite sample, so every value stands beside a null in
which labels are shuffled among whole rows of tokens: the likeness of the tokens of one row stays in the null.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHUFFLES = 50


@dataclass(frozen=True)
class Choices:
    """The choices of one layer, one element per chosen expert: the row it belongs to, its token id, the expert."""

    row: np.ndarray
    token: np.ndarray
    expert: np.ndarray


def information(table: np.ndarray) -> float:
    """Mutual information in bits between the two sides of a table of counts (plug-in estimate)."""
    joint = table / table.sum()
    independent = joint.sum(0, keepdims=True) * joint.sum(1, keepdims=True)
    return float((joint[joint > 0] * np.log2(joint[joint > 0] / independent[joint > 0])).sum())


def about_label(choices: Choices, label: np.ndarray, experts: int, seed: int = 0) -> dict[str, float]:
    """Bits that a chosen expert tells about the label of its row, and the mean and the highest of the shuffles.

    ``label`` [rows] holds numbers from 0.
    """
    rng = np.random.default_rng(seed)
    counts = np.zeros((len(label), experts))
    np.add.at(counts, (choices.row, choices.expert), 1)

    def bits(labels: np.ndarray) -> float:
        table = np.zeros((label.max() + 1, experts))
        np.add.at(table, labels, counts)
        return information(table)

    return _beside([bits(rng.permutation(label)) for _ in range(SHUFFLES)], bits(label))


def about_label_at_token(
    choices: Choices, label: np.ndarray, experts: int, seed: int = 0
) -> dict[str, float]:
    """The same at fixed token identity: the mean over tokens of the information among their own occurrences.

    Only tokens that occur under at least two labels count. In the null the rows that contain a token exchange their
    labels among each other, so that how often a token occurs under which label stays as it is.
    """
    rng = np.random.default_rng(seed)
    pairs, group = np.unique(np.stack([choices.token, choices.row]), axis=1, return_inverse=True)
    token, names = pairs[0], label[pairs[1]]
    shared = np.array([len(set(names[token == one])) > 1 for one in np.unique(token)])
    kept = np.isin(token, np.unique(token)[shared])
    counts = np.zeros((len(token), experts))
    np.add.at(counts, (group.ravel(), choices.expert), 1)
    counts, names = counts[kept], names[kept]
    number = np.unique(token[kept], return_inverse=True)[1]

    def bits(labels: np.ndarray) -> float:
        table = np.zeros((number.max() + 1, label.max() + 1, experts))
        np.add.at(table, (number, labels), counts)
        total = table.sum((1, 2), keepdims=True)
        joint = table / total
        independent = joint.sum(1, keepdims=True) * joint.sum(2, keepdims=True)
        terms = np.where(
            joint > 0,
            joint * np.log2(np.where(joint > 0, joint / np.where(independent > 0, independent, 1), 1)),
            0,
        )
        return float((terms.sum((1, 2)) * total[:, 0, 0]).sum() / total.sum())

    in_order = np.lexsort((np.arange(len(number)), number))
    null = []
    for _ in range(SHUFFLES):
        shuffled = np.empty_like(names)
        shuffled[in_order] = names[np.lexsort((rng.random(len(number)), number))]
        null.append(bits(shuffled))
    return _beside(null, bits(names))


def _beside(null: list[float], bits: float) -> dict[str, float]:
    return {"bits": bits, "null_mean": float(np.mean(null)), "null_high": float(np.max(null))}
