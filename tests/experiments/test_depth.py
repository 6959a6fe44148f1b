"""Learned depth routers, effects of skips, and how much can be left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import build_tiny

import workbench as wb
from workbench.analysis import tolerable
from workbench.errors import StoreError
from workbench.experiments import (
    by_layer,
    cka,
    recovery_layer,
    skip_effects,
    tolerable_levels,
)
from workbench.experiments.depth_router import (
    FoundPath,
    compare,
    layers_by_rank,
    path_plan,
    plan_of,
    search_path,
    train_gates,
    train_paths,
)
from workbench.runtime.artefacts import Artefact
from workbench.runtime.depth.routers import DepthRouter


class Words:
    """A tokenizer whose words are the token ids themselves."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


TEXTS = [[(a * n * n + 3 * n) % 64 for n in range(24)] for a in (1, 5, 7)]
IDS = TEXTS[0]


@pytest.mark.slow
def test_gates_learn_their_target_on_a_frozen_model(bench: Any, tmp_path: Any) -> None:
    model = build_tiny("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = bench(model)
    router = train_gates(one, TEXTS, [1, 2], target=0.4, steps=40, seed=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    table = compare(one, router, TEXTS, seeds=(0,))
    assert list(table["plan"]) == ["none", "learned", "random 0", "uniform"]
    share = table.set_index("plan")["share"]
    assert share["none"] == 1.0 and share["learned"] < 0.9
    assert share["random 0"] == pytest.approx(share["learned"], abs=0.15)
    assert share["uniform"] == pytest.approx(share["learned"], abs=0.08)
    plan = plan_of(one, router)
    run = one.run(IDS, plan)
    decided = one.sql(
        "SELECT layer, position, event FROM depth WHERE run = ? AND unit = 'attn'", [run.id]
    ).fetchall()
    assert len(decided) == 2 * len(IDS)
    residual = run.tensor("resid_pre", layers=[1, 2])
    for layer, position, event in decided:
        assert (event == "execute") == bool(router.visits(layer, residual[layer - 1, position]))
    path = router.artefact().save(tmp_path)
    other = bench(build_tiny("llama"))
    other.add(path)
    assert torch.equal(other.run(IDS, wb.Plan.from_json(plan.to_json())).logits, run.logits)
    again = DepthRouter.of(Artefact.load(path))
    assert again.artefact().hash == router.artefact().hash
    text = one.generate(IDS[:12], 4, plan)
    torch.testing.assert_close(
        text.logits, one.run(text.tokens[:-1].tolist(), plan).logits, rtol=2e-4, atol=2e-4
    )


@pytest.mark.slow
def test_searched_paths_teach_routers_that_skip_and_repeat(bench: Any) -> None:
    one = bench("llama")
    found = search_path(one, IDS, cost=0.5, changes=2)
    assert found.base == pytest.approx(one.run(IDS, record=None).loss)
    assert found.loss == pytest.approx(one.run(IDS, path_plan(found.visits), record=None).loss, rel=1e-5)
    assert found.loss + 0.5 * sum(found.visits) <= found.base + 0.5 * 3
    assert path_plan([1, 1, 1]) == wb.Plan()
    paths = [FoundPath((1, 0, 2), 0.0, 0.0), FoundPath((1, 1, 1), 0.0, 0.0), FoundPath((1, 0, 2), 0.0, 0.0)]
    router = train_paths(one, TEXTS, paths, steps=150, seed=0)
    assert router.layers == (1, 2)
    run = one.run(TEXTS[0], plan_of(one, router))
    events = one.sql(
        "SELECT layer, event, count(*) FROM depth WHERE run = ? GROUP BY ALL", [run.id]
    ).fetchall()
    counts = {(layer, event): count for layer, event, count in events}
    assert counts.get((1, "skip"), 0) > 12 and counts.get((2, "repeat"), 0) > 12
    text = one.generate(IDS[:12], 3, plan_of(one, router))
    whole = one.run(text.tokens[:-1].tolist(), plan_of(one, router))
    torch.testing.assert_close(text.logits, whole.logits, rtol=2e-4, atol=2e-4)


def test_layers_are_chosen_by_a_measured_rank(bench: Any) -> None:
    """The layer is measured, not known by its number: it is the one whose map was made poor."""
    for poor in (1, 2):
        model = build_tiny("llama")
        attention = model.model.layers[poor].self_attn
        with torch.no_grad():  # queries so sharp that many choose the same key
            attention.q_proj.weight.mul_(60.0)
        one = bench(model)
        assert layers_by_rank(one, TEXTS, 1) == [poor]
        ranks = {}
        for layer in (1, 2):
            maps = [one.run(ids, record=None).tensor("attn_pattern", layers=[layer])[0] for ids in TEXTS]
            found = [
                torch.linalg.matrix_rank(m.double(), rtol=0.01).double().mean() / m.shape[-1] for m in maps
            ]
            ranks[layer] = float(torch.stack(found).mean())
        assert min(ranks, key=lambda layer: ranks[layer]) == poor


def test_skip_effects_now_and_later(bench: Any) -> None:
    one = bench("llama")
    now = skip_effects(one, TEXTS[:1])
    assert set(zip(now["skipped"], now["layer"].fillna(-1), strict=True)) == {
        (0, 1), (0, 2), (1, 2), (0, -1), (1, -1), (2, -1)
    }  # fmt: skip
    base, run = one.run(IDS), one.run(IDS, wb.skip.block(0, tokens=slice(1, None), kv="compute"))

    def update(of: Any) -> torch.Tensor:
        return of.tensor("resid_post", layers=2) - of.tensor("resid_pre", layers=2)

    change = (update(run) - update(base)).norm(dim=-1) / update(base).norm(dim=-1)
    row = now[(now["skipped"] == 0) & (now["layer"] == 2)].iloc[0]
    assert row["effect"] == pytest.approx(float(change[1:].max()), rel=1e-4)
    assert row["mean"] == pytest.approx(float(change[1:].mean()), rel=1e-4)
    told = one.sql("FROM skip_matrix(?)", [now.attrs["experiment"]]).df()
    assert set(told["unit"]) == {"block"} and set(told["tokens"]) == {"current"}
    joined = now.merge(told.astype({"layer": "Int64"}), on=["skipped", "layer"])
    assert len(joined) == len(now) == 6
    assert joined["largest"].tolist() == joined["effect"].tolist()
    assert joined["mean_x"].tolist() == joined["mean_y"].tolist()
    later = skip_effects(one, TEXTS[:1], future=True, layers=[2])
    # Nothing behind the last layer attends to it, so that later tokens cannot notice but by the rounding of other shapes.
    assert later["effect"].max() < 1e-6 < now["effect"].min()
    assert skip_effects(one, TEXTS[:1], future=True, layers=[0])["effect"].max() > 0.01


def test_representations_by_layer(bench: Any) -> None:
    one = bench("llama")
    same = by_layer(one, TEXTS[:2], wb.Plan())
    assert same["cka"].tolist() == pytest.approx([1.0] * 3) and same["kl"].abs().max() < 1e-6
    moved = by_layer(one, TEXTS[:2], wb.Plan([wb.skip.mlp(1)]))
    assert moved["distance"][0] == 0.0 and moved["distance"][1] > 0.01
    assert moved["kl"][2] > 0
    base, run = one.run(IDS, record=None), one.run(IDS, wb.skip.mlp(1), record=None)
    p, q = (r.logits[1:].log_softmax(-1) for r in (base, run))
    alone = by_layer(one, [IDS], wb.Plan([wb.skip.mlp(1)]))
    assert alone["kl"][2] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-3)
    kept = one.sql("FROM layer_effect(?)", [moved.attrs["experiment"]]).df()
    assert kept["plan"].unique().tolist() == [wb.Plan([wb.skip.mlp(1)]).hash]
    for name in ("cka", "distance", "kl"):
        assert kept[name].tolist() == moved[name].tolist()
    table = pd.DataFrame({"layer": range(5), "distance": [0.0, 0.5, 0.05, 0.2, 0.01]})
    assert recovery_layer(table, 1) == 4 and recovery_layer(table[:4], 1) is None
    x = torch.randn(50, 8)
    turn = torch.linalg.qr(torch.randn(8, 8)).Q
    assert cka(x, 3 * x @ turn) == pytest.approx(1.0) and cka(x, torch.randn(50, 8)) < 0.6


def test_tolerable_sparsity_has_a_bound_and_names_the_worst_task() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"sparsity": s, "change": c + 0.1 * (task == "b"), "task": task}
        for s, mean in ((0.3, 0.0), (0.5, 0.02), (0.7, 0.5), (0.9, 0.0))
        for task in ("a", "b")
        for c in rng.normal(mean, 0.02, 40)
    ]
    found = tolerable(pd.DataFrame(rows), tolerance=0.1)
    assert found.sparsity == 0.5  # 0.9 does not count behind a level that failed
    assert (found.table["upper"] > found.table["change"]).all()
    assert set(found.table["worst_task"]) == {"b"}
    assert tolerable(pd.DataFrame(rows), tolerance=-1.0).sparsity == 0.0
    with pytest.raises(StoreError, match="no change"):
        tolerable(pd.DataFrame({"sparsity": [0.1]}), 0.1)


def test_tolerable_levels_are_measured_item_by_item_and_kept(bench: Any) -> None:
    one = bench(build_tiny("llama"), tokenizer=Words())
    rng = np.random.default_rng(0)
    items = pd.DataFrame([
        {"prompt": " ".join(map(str, rng.integers(0, 64, 6))), "answer": str(n % 4), "choices": ["0", "1", "2", "3"],
         "task": "even" if n % 2 == 0 else "odd"}
        for n in range(12)
    ])  # fmt: skip
    plans = {ratio: wb.Plan([wb.mask.neurons("all", ratio=ratio, seed=1)]) for ratio in (0.25, 0.75)}
    found = tolerable_levels(one, items, plans, tolerance=10.0)
    assert found.sparsity == 0.75
    changes = []
    for row in items.itertuples():
        ids, answer = [int(word) for word in row.prompt.split()], int(row.answer)
        base, run = (
            one.run(ids, plan, record=None).logits[-1].log_softmax(-1)[answer] for plan in (None, plans[0.75])
        )
        changes.append(float(base - run))
    table = found.table.set_index("sparsity")
    assert table.loc[0.75, "change"] == pytest.approx(np.mean(changes), abs=1e-4)
    by_task = {
        task: np.mean([c for c, t in zip(changes, items["task"], strict=True) if t == task])
        for task in ("even", "odd")
    }
    assert table.loc[0.75, "worst_task"] == max(by_task, key=lambda task: by_task[task])
    told = (
        one.sql("FROM tolerable_sparsity(?, 10.0)", [found.table.attrs["experiment"]]).df().set_index("level")
    )
    assert told["change"].tolist() == pytest.approx(table["change"].tolist())
    assert told.loc[0.75, "worst_task"] == table.loc[0.75, "worst_task"]
    assert told.loc[0.75, "upper"] == pytest.approx(
        np.mean(changes) + 1.645 * np.std(changes, ddof=1) / 12**0.5, abs=1e-4
    )
    assert told["tolerable"].all()
