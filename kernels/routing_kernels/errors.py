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
