"""Training: a long run at a constant rate that can be stopped at any step, and decays that branch off it.

    python -m data.recipe.train run demo --minutes 60
    python -m data.recipe.train decay demo --step 1633 --steps 219 --out FOLDER
    python -m data.recipe.train export demo --step 500 --out FOLDER

``run`` goes on from the newest checkpoint of that name. A checkpoint holds model, optimisers and step; batches and
random numbers follow from seed and step, so that a resumed run is equal to an unbroken one, bit by bit.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import OlmoeForCausalLM

from data.recipe import experts, folders
from data.recipe.configs import CONFIGS, Config, interpolated
from data.recipe.corpus import DOMAINS
from data.recipe.muon import Muon
from data.recipe.stream import Batch, Stream
from data.recipe.tokenizer import load_tokenizer

LABELS = (*DOMAINS, "lessons")
MILESTONE = 500


class Trainer:
    """Model, optimisers and stream of one run."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.step = 0
        torch.manual_seed(config.seed)
        self.model = OlmoeForCausalLM(config.model())
        self.model.set_experts_implementation(experts.register())
        self.token_losses = torch.compile(token_losses, dynamic=False) if config.compile else token_losses
        self.routers: list[tuple[torch.Tensor, torch.Tensor]] = []
        for layer in self.model.model.layers:
            layer.mlp.gate.register_forward_hook(self.keep_router)
            if config.compile:  # the expert banks stay outside: their shapes follow from the data
                layer.self_attn.compile(dynamic=False)
                layer.input_layernorm.compile(dynamic=False)
                layer.post_attention_layernorm.compile(dynamic=False)
        self.optimisers = optimisers(self.model, config)
        self.stream = Stream(config, load_tokenizer())

    def keep_router(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        """Forward hook of the routers: keeps logits and choice of the running step."""
        self.routers.append((output[0], output[2]))

    def train_step(self, rate: float) -> dict[str, Any]:
        """One update at ``rate`` times the configured rates; returns the row for the log."""
        started = time.perf_counter()
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group["full_rate"]
        batch = self.stream.batch(self.step)
        self.routers.clear()
        hidden = self.model.model(
            input_ids=batch.ids, attention_mask=batch.mask, use_cache=False
        ).last_hidden_state
        losses = self.token_losses(hidden, self.model.lm_head.weight, batch.targets)
        loss = (losses * batch.weights).sum() / batch.weights.sum()
        shares = token_shares(batch, interpolated(self.config.even_balance, self.step))
        balance, z = router_losses(self.routers, shares)
        weight = interpolated(self.config.balance, self.step)
        (loss + weight * balance + self.config.z_loss * z).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        row = {
            "step": self.step,
            "rate": rate,
            "loss": loss.item(),
            "balance": balance.item(),
            "norm": norm.item(),
        }
        row |= losses_by_label(losses.detach(), batch)
        row["load_max_over_mean"] = [
            round(load_ratio(index, self.config.experts), 2) for _, index in self.routers
        ]
        row["seconds"] = round(time.perf_counter() - started, 3)
        self.step += 1
        return row

    def save(self, folder: Path) -> Path:
        """Writes a checkpoint; the file appears under its name only when complete."""
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"step-{self.step:07d}.pt"
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        torch.save(state, target.with_suffix(".part"))
        os.replace(target.with_suffix(".part"), target)
        return target

    def load(self, checkpoint: Path) -> None:
        """Goes back to the state of a checkpoint."""
        state = torch.load(checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step = state["step"]

    def export(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Writes a plain OLMoE model and the tokenizer, as `from_pretrained` loads them."""
        plain = OlmoeForCausalLM(self.config.model())
        plain.load_state_dict(self.model.state_dict())
        plain.to(dtype).save_pretrained(folder)
        shutil.copytree(folders.corpus() / "tokenizer", folder, dirs_exist_ok=True)


def optimisers(model: OlmoeForCausalLM, config: Config) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of attention and experts, AdamW for embeddings, routers and norms."""
    attention, halves, stacks, others = [], [], [], []
    for name, parameter in model.named_parameters():
        if "gate_up_proj" in name:
            halves.append(parameter)
        elif "down_proj" in name:
            stacks.append(parameter)
        elif "_proj" in name:
            attention.append(parameter)
        else:
            others.append(parameter)
    full = {"full_rate": config.matrix_rate}
    groups = [{"params": attention + stacks, **full}, {"params": halves, "halves": True, **full}]
    return [
        Muon(groups, lr=config.matrix_rate, weight_decay=config.weight_decay),
        torch.optim.AdamW(
            [{"params": others, "full_rate": config.other_rate}],
            lr=config.other_rate,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=True,
        ),
    ]


def token_losses(hidden: torch.Tensor, unembedding: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy of every token in nats [B, L], for hidden [B, L, H] and unembedding [V, H]."""
    logits = F.linear(hidden, unembedding)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)


def token_shares(batch: Batch, even: float) -> torch.Tensor:
    """Weight of every token [B * L], 1 in sum: the same for all (even 0) or the same for all domains (even 1)."""
    rows = torch.bincount(batch.domain, minlength=len(LABELS))
    by_domain = 1 / (rows[batch.domain] * (rows > 0).sum())
    by_row = even * by_domain + (1 - even) / len(batch.domain)
    length = batch.ids.shape[1]
    return (by_row / length).repeat_interleave(length)


def router_losses(
    routers: list[tuple[torch.Tensor, torch.Tensor]], shares: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over layers of the load-balancing loss of Fedus et al. (2021), 1 when even, and of the router z-loss."""
    balance, z = [], []
    for logits, index in routers:
        count, k = logits.shape[-1], index.shape[-1]
        load = shares.new_zeros(count).index_add_(0, index.flatten(), shares.repeat_interleave(k) / k)
        balance.append(count * (load * (shares[:, None] * logits.softmax(-1)).sum(0)).sum())
        z.append(logits.logsumexp(-1).square().mean())
    return torch.stack(balance).mean(), torch.stack(z).mean()


def load_ratio(index: torch.Tensor, count: int) -> float:
    """Highest load of an expert over the mean load."""
    return float(torch.bincount(index.flatten(), minlength=count).max() * count / index.numel())


def losses_by_label(losses: torch.Tensor, batch: Batch) -> dict[str, float]:
    """Mean loss in nats of each text domain, and of the scored tokens of the lessons."""
    result = {}
    for number, label in enumerate(LABELS):
        counted = batch.weights[batch.domain == number] == 1.0
        if counted.any():
            result[f"loss/{label}"] = round(float(losses[batch.domain == number][counted].mean()), 4)
    return result


def checkpoints(name: str) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    return sorted(folders.training(name).glob("step-*.pt"))


def beginning(name: str, step: int) -> Path:
    """The checkpoint of another run that a run begins from."""
    file = folders.training(name) / f"step-{step:07d}.pt"
    if not file.exists():
        raise SystemExit(
            f"{file} is missing: python -m data.recipe.train run {name} --until {step} makes it."
        )
    return file


def run(config: Config, minutes: float, every: float, keep: int, until: int | None = None) -> None:
    """Trains from the newest checkpoint on, saving every few minutes and at the end.

    A run without a checkpoint begins at random weights, or where its configuration says it leaves another run. It ends after
    some minutes, or when ``until`` steps are done in all.
    """
    trainer = Trainer(config)
    folder = folders.training(config.name)
    if saved := checkpoints(config.name):
        trainer.load(saved[-1])
    elif config.begins is not None:
        trainer.load(beginning(*config.begins))
    if until is not None and trainer.step >= until:
        print(f"{config.name} already has {trainer.step} steps")
        return
    end = time.time() + 60 * minutes
    last = time.time()
    for row in logged(
        trainer, folder / "log.jsonl", lambda: min(1.0, (trainer.step + 1) / config.warmup_steps)
    ):
        done = time.time() > end or trainer.step == until
        if done or time.time() - last > 60 * every:
            trainer.save(folder)
            last = time.time()
            thin(config.name, keep)
        if done:
            print(f"stopped after step {row['step']}")
            return


def decay(config: Config, checkpoint: Path, steps: int, out: Path, length: int) -> None:
    """Anneals from a checkpoint: in so many steps the rate falls as 1 - sqrt(share of them), then the model is exported.

    ``length`` is the row length, which may be longer than in the run, so that late positions are trained as well.
    """
    trainer = Trainer(replace(config, length_first=length, length=length))
    trainer.load(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    first = trainer.step
    for _ in logged(trainer, out / "decay.jsonl", lambda: 1 - math.sqrt((trainer.step - first) / steps)):
        if trainer.step == first + steps:
            break
    trainer.export(out)
    describe(out, config, from_step=first, steps=trainer.step, length=length)


def export(config: Config, checkpoint: Path, out: Path) -> None:
    """Writes a checkpoint of a run as it is, at the full rate, as a plain model in float16: for looking back on training."""
    trainer = Trainer(replace(config, compile=False))
    trainer.load(checkpoint)
    trainer.export(out, torch.float16)
    describe(out, config, from_step=None, steps=trainer.step, length=config.row_length(trainer.step))


def describe(out: Path, config: Config, *, from_step: int | None, steps: int, length: int) -> None:
    """Writes training.json: where in training a model stands; ``from_step`` is where its rate began to fall, if it did."""
    tokens = steps * config.tokens_per_step
    summary = {
        "config": config.name,
        "from_step": from_step,
        "steps": steps,
        "tokens": tokens,
        "length": length,
    }
    (out / "training.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(summary)


def logged(trainer: Trainer, log: Path, rate: Any) -> Iterator[dict[str, Any]]:
    """Endless training steps, each written to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", buffering=1) as file:
        while True:
            row = trainer.train_step(rate())
            file.write(json.dumps(row) + "\n")
            yield row


def thin(name: str, keep: int) -> None:
    """Deletes old checkpoints except the newest ``keep`` and the first of every `MILESTONE` steps."""
    milestones = set()
    for file in checkpoints(name)[:-keep]:
        milestone = int(file.stem.removeprefix("step-")) // MILESTONE
        if milestone in milestones:
            file.unlink()
        milestones.add(milestone)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("run", "decay", "export"):
        sub = commands.add_parser(command)
        sub.add_argument("name", choices=sorted(CONFIGS))
        sub.add_argument("--threads", type=int, default=2)
        if command == "run":
            sub.add_argument("--minutes", type=float, required=True)
            sub.add_argument("--every", type=float, default=4.0, help="minutes between checkpoints")
            sub.add_argument("--keep", type=int, default=6)
            sub.add_argument("--until", type=int, help="number of steps in all after which to stop")
        else:
            sub.add_argument("--step", type=int, help="step of the checkpoint; the newest by default")
            sub.add_argument("--out", type=Path, required=True)
            if command == "decay":
                sub.add_argument(
                    "--steps", type=int, required=True, help="steps in which the rate falls to zero"
                )
                sub.add_argument("--length", type=int, default=512, help="row length while annealing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = CONFIGS[options.name]
    if options.command == "run":
        run(config, options.minutes, options.every, options.keep, options.until)
    else:
        saved = checkpoints(config.name)
        step = options.step
        chosen = folders.training(config.name) / f"step-{step:07d}.pt" if step else saved[-1]
        if options.command == "decay":
            decay(config, chosen, options.steps, options.out, options.length)
        else:
            export(config, chosen, options.out)


if __name__ == "__main__":
    main()
