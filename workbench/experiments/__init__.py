"""Questions that need many runs: sweeps over plans, matched random controls, paired tests."""

from workbench.experiments.controls import matched_random
from workbench.experiments.oracle import Paths, choice_losses, oracle
from workbench.experiments.paired import paired
from workbench.experiments.sweep import Sweep, sweep

__all__ = ["Paths", "Sweep", "choice_losses", "matched_random", "oracle", "paired", "sweep"]
