"""Errors a user meets: each says what is wrong and what to do about it.

Every error carries two sentences, ``problem`` and ``remedy``; the command line and the panel print both
and never a traceback.
"""

from __future__ import annotations


class WorkbenchError(Exception):
    """Base of every error the workbench raises on purpose.

    Parameters
    ----------
    problem
        One sentence: what is wrong, naming the value that is wrong.
    remedy
        One sentence: what the user can do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[WorkbenchError], tuple[str, str]]:
        # The default pickles only the joined message, which cannot rebuild the two sentences in another process.
        return type(self), (self.problem, self.remedy)


class AddressError(WorkbenchError):
    """A site, layer or other coordinate that does not exist."""


class ModelError(WorkbenchError):
    """A model that cannot be found, loaded or understood."""


class ContractError(ModelError):
    """A model whose own numbers disagree with what its structure says they must be."""


class PlanError(WorkbenchError):
    """A plan or edit whose data are not valid, whatever the model."""


class EditRefused(WorkbenchError):
    """A valid edit that cannot act on this model, run or scope."""


class PromptError(WorkbenchError):
    """A prompt that cannot be run: empty, too long, or of the wrong kind."""


class StoreError(WorkbenchError):
    """A store that cannot be opened, read or written."""


class SqlError(StoreError):
    """A query that the store refuses or cannot run."""


class SetupError(WorkbenchError):
    """Something the machine lacks: a package, a compiler, a browser, a device."""
