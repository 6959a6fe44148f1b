"""Generation in one go: the prompt in one pass or in pieces, then a token a pass, with the cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.errors import PromptError
from workbench.interventions import Plan
from workbench.runtime.attach import device_of
from workbench.runtime.cache import new_cache
from workbench.runtime.passes import Pass
from workbench.runtime.record import Record
from workbench.runtime.run import Done, Run, Step
from workbench.store import new_run_id

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen: greedily at ``temperature`` 0, else drawn; the same ``seed`` draws the same tokens."""

    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise PromptError(
                f"The temperature {self.temperature} is negative.", "Use 0 for greedy, above 0 to sample."
            )

    @property
    def recorded_seed(self) -> int | None:
        """The seed, where anything is drawn."""
        return self.seed if self.temperature > 0 else None

    def choose(self, logits: Tensor, position: int) -> int:
        """The token [V] -> id at ``position``; a draw depends on seed and position alone, so a rewind draws it again."""
        if self.temperature == 0:
            return int(logits.argmax())
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + position)
        return int(torch.multinomial((logits / self.temperature).softmax(-1), 1, generator=generator))


def generate(
    bench: Bench,
    prompt: list[int],
    new_tokens: int,
    plan: Plan,
    record: Record | None,
    on_step: Callable[[Step], Any] | None,
    labels: Mapping[str, Any],
    sampling: Sampling,
    prefill: int | None = None,
) -> Run:
    """Continue ``prompt``; what was generated is kept as a run even if a callback or the user interrupts.

    With ``prefill`` the prompt is read that many tokens a pass; all of these passes are step 0.
    """
    started = time.perf_counter()
    device = device_of(bench.model)
    ends = end_tokens(bench.model)
    prompt_tokens = torch.tensor([len(prompt)], device=device)
    run = new_run_id() if record is not None else None
    recorder = None if record is None or run is None else bench.recorder(record, [run])
    tokens: list[int] = list(prompt)
    logits: list[Tensor] = []
    cache = new_cache(bench.model)
    fed = torch.tensor([prompt], device=device)
    try:
        with bench.session([plan], record, [labels]) as session:
            for number in range(new_tokens):
                start = len(tokens) - fed.shape[1]
                for part in fed.split(prefill or fed.shape[1], dim=1):
                    positions = torch.arange(start, start + part.shape[1], device=device).unsqueeze(0)
                    session.begin(Pass(number, positions, None, prompt_tokens, part))
                    output = bench.model(input_ids=part, past_key_values=cache, use_cache=True)
                    if recorder is not None:
                        recorder.take(session)
                    logits.append(output.logits[0].float().cpu())
                    start += part.shape[1]
                token = sampling.choose(logits[-1][-1], len(tokens))
                step = Step(number, len(tokens), token, bench.token_text(token))
                tokens.append(token)
                if (on_step is not None and on_step(step) is False) or token in ends:
                    break
                fed = torch.tensor([[token]], device=device)
    finally:
        if logits:
            done = Done(
                run=run, kind="generate", tokens=tokens, prompt_tokens=len(prompt), plan=plan, labels=labels,
                seconds=time.perf_counter() - started, seed=sampling.recorded_seed,
                dropped={} if recorder is None or run is None else recorder.dropped.get(run, {}),
            )  # fmt: skip
            result = bench.finish(done, torch.cat(logits), record)
    return result


def end_tokens(model: Any) -> frozenset[int]:
    """The ids at which the model ends a text."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if ends is None:
        ends = getattr(model.config, "eos_token_id", None)
    return frozenset() if ends is None else frozenset([ends] if isinstance(ends, int) else ends)
