"""Questions that need many runs: sweeps over plans, matched random controls, paired tests."""

from workbench.experiments.controls import matched_random
from workbench.experiments.effects import by_layer, cka, recovery_layer, skip_effects, tolerable_levels
from workbench.experiments.estimators import beside_oracle
from workbench.experiments.mask_search import MaskSearch, search_mask
from workbench.experiments.oracle import Paths, choice_losses, oracle
from workbench.experiments.paired import paired
from workbench.experiments.sweep import Sweep, sweep

__all__ = [
    "beside_oracle",
    "MaskSearch",
    "Paths",
    "Sweep",
    "by_layer",
    "choice_losses",
    "cka",
    "matched_random",
    "oracle",
    "paired",
    "recovery_layer",
    "search_mask",
    "skip_effects",
    "sweep",
    "tolerable_levels",
]
