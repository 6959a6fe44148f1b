"""Named configurations of the recipe: the demo model, its variant, its smaller seeds and its dense twin."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from transformers import OlmoeConfig

from data.recipe.tokenizer import SIZE

# A schedule as (step, value): straight lines between the knots, constant outside. A jump is where the first run was mended.
Knots = tuple[tuple[int, float], ...]


def interpolated(knots: Knots, step: int) -> float:
    """Value of a piecewise linear schedule at a step."""
    steps, values = zip(*knots, strict=True)
    return float(np.interp(step, steps, values))


@dataclass(frozen=True)
class Config:
    """Shape, stream and rates of one training run; tokens are counted as input positions."""

    name: str
    hidden: int = 128
    expert_width: int = 128
    experts: int = 16
    top_k: int = 2
    layers: int = 6
    heads: int = 4
    norm_topk_prob: bool = True
    seed: int = 0
    tokens_per_step: int = 4096
    length_first: int = 128  # while the curriculum opens; short rows cost less attention
    length: int = 256
    # progress: which levels are open. Opened twice as fast, no looking up of earlier symbols forms in 500 steps
    curriculum: Knots = ((0, 0.0), (416, 0.1704), (750, 1.0))
    lesson_share: Knots = ((0, 0.7), (416, 0.666), (750, 0.5), (826, 0.5), (827, 0.44))  # of the rows
    hard_tasks: Knots = ((826, 0.0), (827, 1.0))  # 0: all tasks alike; 1: more of those that are learnt late
    matrix_rate: float = 6e-3
    other_rate: float = 3e-3
    weight_decay: float = 0.05
    warmup_steps: int = 150
    # weight of the load-balancing loss; 0.01 for good let the loads of the first layers drift apart
    balance: Knots = ((0, 0.01), (416, 0.01), (417, 0.04))
    # 0: every token counts alike in the balance, 1: every domain, or lessons crowd the texts into few experts
    even_balance: Knots = ((826, 0.0), (827, 1.0))
    z_loss: float = 1e-4
    begins: tuple[str, int] | None = None  # name and step of the run from whose checkpoint this one goes on
    compile: bool = True

    def progress(self, step: int) -> float:
        """Share of the curriculum that lies behind a step, 0 to 1."""
        return interpolated(self.curriculum, step)

    def row_length(self, step: int) -> int:
        """Input positions of a row at a step."""
        return self.length if self.progress(step) == 1.0 else self.length_first

    def model(self) -> OlmoeConfig:
        """The configuration that transformers builds the model from."""
        return OlmoeConfig(
            vocab_size=SIZE,
            hidden_size=self.hidden,
            intermediate_size=self.expert_width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_experts=self.experts,
            num_experts_per_tok=self.top_k,
            norm_topk_prob=self.norm_topk_prob,
            router_aux_loss_coef=self.balance[-1][1],
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
            initializer_range=0.02,
        )


DEMO = Config("demo")
SMALL = replace(DEMO, name="small", hidden=80, expert_width=80)  # three seeds of it must fit beside the demo
CONFIGS = {
    config.name: config
    for config in (
        DEMO,
        # From scratch, looking up of earlier symbols had not formed with raw weights by step 330 (with renormalised ones
        # it had by step 290), so the variant leaves the demo model's run where it has.
        replace(DEMO, name="demo-raw-weights", norm_topk_prob=False, begins=("demo", 1082)),
        *(replace(SMALL, name=f"small-seed{seed}", seed=seed) for seed in (1, 2, 3)),
        replace(DEMO, name="dense-twin", experts=1, top_k=1, expert_width=DEMO.expert_width * DEMO.top_k),
        replace(
            DEMO,
            name="tiny",
            hidden=32,
            expert_width=16,
            experts=4,
            layers=2,
            heads=2,
            tokens_per_step=256,
            length_first=32,
            length=64,
            curriculum=((0, 0.0), (4, 1.0)),
            warmup_steps=4,
            compile=False,
        ),
    )
}
