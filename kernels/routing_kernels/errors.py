"""Errors of this package: one sentence that says what is wrong, one that says what to do."""

from __future__ import annotations


class KernelError(Exception):
    """Base of every error raised here on purpose.

    Parameters
    ----------
    problem
        One sentence: what is wrong, naming the value that is wrong.
    remedy
        One sentence: what the caller can do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[KernelError], tuple[str, str]]:
        # The default pickles only the joined message, which cannot rebuild the two sentences in another process.
        return type(self), (self.problem, self.remedy)


class ArgumentError(KernelError, ValueError):
    """An argument of an op whose shape, dtype, device, layout or value cannot be used."""


class BackendError(KernelError, RuntimeError):
    """A backend or instruction set that was asked for by name and cannot be had here."""


def bad_block_rows() -> ArgumentError:
    return ArgumentError(
        "ptr and col do not describe rows of blocks.",
        "Let ptr [N, query blocks + 1] run from 0 to the length of col without a gap, each head where the one before "
        "ends, and let the columns of a row ascend below the number of key blocks; block_rows makes both from a mask.",
    )


def bad_masked_weight() -> ArgumentError:
    return ArgumentError(
        "The values, bits and row starts of the masked weight do not fit together.",
        "Make them with pack_masked and leave them as they are.",
    )
