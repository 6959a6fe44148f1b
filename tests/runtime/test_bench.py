"""The bench as a user meets it: prompts, records, rows, differences, and errors that say what to do."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import build_tiny

import workbench as wb
from workbench.errors import (
    EditRefused,
    ModelError,
    PlanError,
    PromptError,
    SetupError,
    StoreError,
    WorkbenchError,
)
from workbench.store import Store

IDS = [5, 17, 3, 60, 22, 9, 41, 8]


def test_a_run_brings_tokens_logits_loss_and_rows(bench: Any) -> None:
    one = bench("olmoe")
    run = one.run(IDS, labels={"language": "none"})
    log_p = run.logits.double().log_softmax(-1)
    nll = [-float(log_p[n, t]) for n, t in enumerate(IDS[1:])]
    assert run.tokens.tolist() == IDS and run.logits.shape == (8, 64)
    assert run.loss == pytest.approx(float(np.mean(nll)), rel=1e-6)
    rows = one.sql(
        "SELECT position, token, logprob, part FROM token WHERE run = ? ORDER BY position", [run.id]
    ).fetchall()
    assert [r[1] for r in rows] == IDS and rows[0][2] is None and {r[3] for r in rows} == {"prompt"}
    assert [r[2] for r in rows[1:]] == pytest.approx([-x for x in nll], rel=1e-5)
    got = one.sql(
        "SELECT kind, tokens, num_experts, top_k, labels->>'language' FROM run WHERE run = ?", [run.id]
    ).fetchone()
    assert got == ("forward", 8, 8, 2, "none")


def test_every_signal_of_every_layer_becomes_rows(bench: Any) -> None:
    one = bench("olmoe")
    run = one.run(IDS, record=wb.Record(scores=True))
    size, layers, k, heads = len(IDS), 3, 2, 4
    counts = {
        "routing": size * layers * k, "router": size * layers, "router_scores": size * layers,
        "contribution": size * layers, "sparsity": size * layers * k, "attention_rank": layers * heads,
    }  # fmt: skip
    for table, rows in counts.items():
        assert one.sql(f"SELECT count(*) FROM {table} WHERE run = ?", [run.id]).fetchone() == (rows,), table
    assert (
        run.routing.fetchall()
        and run.attention_rank.fetchall()
        and run.contribution.fetchall()
        and run.sparsity.fetchall()
    )
    asked = one.sql("SELECT sum(executed), sum(skipped) FROM cost WHERE run = ?", [run.id]).fetchone()
    assert asked == (size * layers * k, 0)


def test_recorded_numbers_are_what_the_model_did(bench: Any) -> None:
    """Margin, entropy, slot norm, contribution and sparsity against a plain recomputation from hooked tensors."""
    model = build_tiny("olmoe")
    seen: dict[str, Any] = {}
    block = model.model.layers[1]
    handles = [
        block.register_forward_hook(lambda m, a, o: seen.update(pre=a[0][0], post=o[0])),
        block.self_attn.register_forward_hook(lambda m, a, o: seen.update(attn=o[0][0])),
        block.mlp.register_forward_hook(lambda m, a, o: seen.update(x=a[0][0], mlp=o[0])),
        block.mlp.gate.register_forward_hook(lambda m, a, o: seen.update(logits=o[0])),
    ]
    one = bench(model)
    run = one.run(IDS, record=wb.Record(scores=True, threshold=0.05))
    for handle in handles:
        handle.remove()
    t = {name: value.detach().double().numpy() for name, value in seen.items()}
    gate_up = block.mlp.experts.gate_up_proj.detach().double().numpy()
    down = block.mlp.experts.down_proj.detach().double().numpy()

    p = np.exp(t["logits"]) / np.exp(t["logits"]).sum(-1, keepdims=True)
    ordered = np.sort(p, axis=-1)[:, ::-1]
    query = "SELECT margin, entropy FROM router WHERE run = ? AND layer = 1 ORDER BY position"
    margin, entropy = np.array(one.sql(query, [run.id]).fetchall()).T
    np.testing.assert_allclose(margin, ordered[:, 1] - ordered[:, 2], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(entropy, -(p * np.log(p)).sum(-1), rtol=1e-4)

    query = "SELECT position, expert, weight, norm FROM routing WHERE run = ? AND layer = 1"
    for position, expert, weight, norm in one.sql(query, [run.id]).fetchall():
        x = t["x"][position]
        gate, up = np.split(gate_up[expert] @ x, 2)
        activation = gate / (1 + np.exp(-gate)) * up
        assert weight == pytest.approx(p[position, expert], rel=1e-4)
        assert norm == pytest.approx(np.linalg.norm(down[expert] @ activation), rel=1e-4)
        zero, below, hoyer = one.sql(
            "SELECT zero_share, below_share, hoyer FROM sparsity "
            "WHERE run = ? AND layer = 1 AND position = ? AND expert = ?",
            [run.id, position, expert],
        ).fetchone()
        n = len(activation)
        want = (np.sqrt(n) - np.abs(activation).sum() / np.linalg.norm(activation)) / (np.sqrt(n) - 1)
        assert zero == 0 and below == pytest.approx((np.abs(activation) < 0.05).mean(), abs=1.5 / n)
        assert hoyer == pytest.approx(want, rel=1e-3)

    def cosine(a: Any, b: Any) -> Any:
        return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)

    query = (
        "SELECT attn_norm, attn_cos, mlp_norm, mlp_cos, block_norm, influence FROM contribution "
        "WHERE run = ? AND layer = 1 ORDER BY position"
    )
    got = np.array(one.sql(query, [run.id]).fetchall()).T
    mid = t["pre"] + t["attn"]
    norm = lambda a: np.linalg.norm(a, axis=-1)  # noqa: E731
    want = [
        norm(t["attn"]) / norm(t["pre"]), cosine(t["attn"], t["pre"]), norm(t["mlp"]) / norm(mid), cosine(t["mlp"], mid),
        norm(t["post"] - t["pre"]) / norm(t["pre"]), 1 - cosine(t["pre"], t["post"]),
    ]  # fmt: skip
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)


def test_attention_rank_rows_agree_with_eager_attention_maps(bench: Any) -> None:
    model = build_tiny("mixtral")
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(torch.tensor([IDS]), output_attentions=True, use_cache=False).attentions
    model.set_attn_implementation("sdpa")
    one = bench(model)
    run = one.run(IDS)
    rows = one.sql(
        "SELECT layer, head, rank, stable_rank, submatrix, tokens FROM attention_rank WHERE run = ?", [run.id]
    ).fetchall()
    assert len(rows) == 12
    for layer, head, rank, stable, submatrix, tokens in rows:
        s = np.linalg.svd(maps[layer][0, head].double().numpy(), compute_uv=False)
        assert (submatrix, tokens) == ("full", len(IDS))
        assert rank == int((s > 0.01 * s[0]).sum())
        assert stable == pytest.approx((s**2).sum() / s[0] ** 2, rel=1e-4)


def test_long_attention_maps_are_sampled_and_say_so(bench: Any) -> None:
    one = bench("olmoe")
    run = one.run([n % 60 for n in range(40)], record=wb.Record(rank_tokens=16))
    assert set(
        one.sql("SELECT submatrix, tokens FROM attention_rank WHERE run = ?", [run.id]).fetchall()
    ) == {("sampled", 16)}


def test_record_chooses_layers_and_signals(bench: Any) -> None:
    one = bench("olmoe")
    run = one.run(IDS, record=wb.Record(layers=1, contribution=False, attention_rank=False))
    assert one.sql("SELECT DISTINCT layer FROM routing WHERE run = ?", [run.id]).fetchall() == [(1,)]
    assert one.sql("SELECT count(*) FROM contribution WHERE run = ?", [run.id]).fetchone() == (0,)
    with pytest.raises(PlanError, match="rank_tokens"):
        wb.Record(rank_tokens=1000)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (wb.Record(layers=[0, 3]), "names layer 3, but the model has layers 0 to 2"),
        ("all", "type str is not a Record"),
        ({"routing": True}, "type dict is not a Record"),
        (wb.Record, "is not a Record"),
    ],
)
def test_what_would_record_nothing_is_refused(bench: Any, record: Any, words: str) -> None:
    one = bench("olmoe")
    ways = [
        lambda: one.run(IDS, record=record),
        lambda: one.run(IDS, wb.reroute.ban(1, 3), record=record),
        lambda: one.generate(IDS, max_new_tokens=2, record=record),
        lambda: one.record([IDS], record=record),
        lambda: one.live(IDS, record=record).step(),
    ]
    for way in ways:
        with pytest.raises(PlanError, match=words):
            way()
    assert one.sql("SELECT count(*) FROM run").fetchone() == (0,)
    one.run(IDS)
    assert one.sql("SELECT count(*) FROM run").fetchone() == (1,)


def test_the_plan_of_a_run_can_be_read_back_and_replayed_to_the_same_bits(bench: Any) -> None:
    one = bench("olmoe")
    plan = wb.Plan([wb.reroute.ban(1, 3), wb.skip.block(2), wb.mask.heads(0, 1)])
    run = one.run(IDS, plan)
    text = one.sql("SELECT json FROM plan JOIN run_plan USING (plan) WHERE run = ?", [run.id]).fetchone()[0]
    again = wb.Plan.from_json(text)
    assert again == plan
    assert torch.equal(one.run(IDS, again).logits, run.logits)


@pytest.mark.slow
def test_diff_reports_a_planted_change_where_it_was_planted(bench: Any) -> None:
    one = bench("olmoe")
    base = one.run(IDS)
    victim = one.sql(
        "SELECT expert FROM routing WHERE run = ? AND layer = 1 AND position = 2 AND slot = 0", [base.id]
    ).fetchone()[0]
    run = one.run(IDS, wb.reroute.ban(1, victim, tokens=[2]))
    diff = one.diff(base, run)
    assert (diff.first_position, diff.first_layer) == (2, 1)
    at = diff.flips.query("layer == 1 and position == 2").iloc[0]
    assert victim in set(at["base_experts"]) - set(at["run_experts"])
    assert diff.first_expert == victim
    p, q = base.logits.double().log_softmax(-1), run.logits.double().log_softmax(-1)
    np.testing.assert_allclose(diff.kl.numpy(), (p.exp() * (p - q)).sum(-1).numpy(), atol=1e-9)
    assert float(diff.kl[:2].max()) == 0 and float(diff.kl[2:].max()) > 0
    assert "layer 1" in str(diff)
    same = one.diff(base, one.run(IDS))
    assert len(same.flips) == 0 and same.first_layer is None and float(same.kl.max()) == 0


@pytest.mark.slow
def test_generate_streams_and_stops_when_told(bench: Any) -> None:
    one = bench("olmoe")
    steps: list[Any] = []
    run = one.generate(IDS, 10, on_step=lambda step: steps.append(step) or len(steps) < 4)
    assert [s.position for s in steps] == [8, 9, 10, 11] and run.tokens.tolist()[8:] == [
        s.token for s in steps
    ]
    assert one.sql("SELECT DISTINCT step FROM routing WHERE run = ? ORDER BY 1", [run.id]).fetchall() == [
        (0,),
        (1,),
        (2,),
        (3,),
    ]
    sampled = one.generate(IDS, 10, temperature=1.5, seed=3)
    assert one.generate(IDS, 10, temperature=1.5, seed=3).tokens.tolist() == sampled.tokens.tolist()
    assert one.generate(IDS, 10, temperature=1.5, seed=4).tokens.tolist() != sampled.tokens.tolist()


def test_a_training_model_is_run_in_evaluation_mode_and_put_back(bench: Any) -> None:
    model = build_tiny("olmoe").train()
    one = bench(model)
    one.run(IDS)
    assert model.training and torch.is_grad_enabled()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ([], "no tokens"), ("text", "no tokenizer"), ([64], "outside the vocabulary"), ([-1], "outside the vocabulary"),
        ([1] * 65, "context holds 64"), (3.5, "not a prompt"), (torch.zeros(2, 3), "not one sequence"),
    ],
)  # fmt: skip
def test_bad_prompts_get_one_clear_error(bench: Any, prompt: Any, says: str) -> None:
    with pytest.raises(PromptError, match=says) as caught:
        bench("olmoe").run(prompt)
    assert caught.value.remedy


def test_plans_that_cannot_hold_in_this_run_are_refused(bench: Any) -> None:
    one = bench("olmoe")
    refused = [
        (wb.reroute.ban(0, 1, tokens=[8]), "names token 8, but the run computes tokens 0 to 7"),
        (wb.reroute.ban(0, 1, tokens="generated"), "only reads its prompt"),
        (wb.reroute.ban(0, 1, phase="decode"), "only reads its prompt"),
        (wb.reroute.replay(12345), "no recorded routes"),
    ]
    for edit, says in refused:
        with pytest.raises(EditRefused, match=says):
            one.run(IDS, edit)
    with pytest.raises(PlanError, match="2 plans for 1 prompts"):
        one.run(IDS, plans=[None, None])
    with pytest.raises(PlanError, match="not a plan"):
        one.run(IDS, {"kind": "skip.block"})
    with pytest.raises(PromptError, match="cannot be generated"):
        one.generate(IDS, 0)
    with pytest.raises(PromptError, match="fills the model's context"):
        one.generate([1] * 64, 1)
    assert one.run(IDS).id is not None, "a refused run leaves the bench usable"


def test_a_warning_tells_which_of_a_ban_and_a_force_holds(bench: Any) -> None:
    with pytest.warns(UserWarning, match="both banned and forced"):
        bench("olmoe").run(IDS, wb.Plan([wb.reroute.ban(1, 3), wb.reroute.force(1, 3)]))


def test_a_bench_records_into_a_store_with_options_of_its_own() -> None:
    with Store.open(":memory:", threads=2) as store:
        with wb.open(build_tiny("olmoe"), store=store) as bench:
            run = bench.run([1, 2, 3])
            assert bench.sql("SELECT current_setting('threads')").fetchall() == [(2,)]
        assert store.sql("SELECT run FROM run").fetchall() == [(run.id,)], (
            "it is open until its first user closes it"
        )
    for wrong, why in ((store, "closed"), (5, "not a store")):
        with pytest.raises(StoreError, match=why):
            wb.open(build_tiny("olmoe"), store=wrong)  # type: ignore[arg-type]


def test_benches_of_one_model_share_its_kernels_until_the_last_is_closed() -> None:
    model = build_tiny("mixtral")
    plain = model(torch.tensor([IDS])).logits
    before = {
        name: getattr(model.config, name) for name in ("_attn_implementation", "_experts_implementation")
    }
    first, second, third = (wb.open(model, store=":memory:") for _ in range(3))
    logits = first.run(IDS).logits
    assert not torch.equal(second.run(IDS, plan=wb.reroute.ban("all", 1)).logits, logits)
    with pytest.raises(SetupError, match="another bench with kernels='auto'"):
        wb.open(model, store=":memory:", kernels="reference")
    first.close()
    assert torch.equal(second.run(IDS).logits, logits) and second.kernel_paths == third.kernel_paths
    second.close()
    first.close()  # once more says nothing
    assert torch.equal(third.run(IDS).logits, logits)
    third.store.flush()  # until then the writer has the run, and with it the bench
    del third  # let go, not closed
    gc.collect()
    assert {name: getattr(model.config, name) for name in before} == before
    assert torch.equal(model(torch.tensor([IDS])).logits, plain)
    with wb.open(model, store=":memory:", kernels="reference") as other:
        assert other.kernels == "reference"


def test_benches_of_one_model_run_one_after_the_other() -> None:
    model = build_tiny("mixtral")
    with wb.open(model, store=":memory:") as one, wb.open(model, store=":memory:") as two:
        plan = wb.Plan([wb.reroute.ban("all", 1)])
        wanted = {None: one.run(IDS).logits, plan: one.run(IDS, plan=plan).logits}
        jobs = [(bench, chosen) for bench in (one, two) for chosen in wanted] * 4
        with ThreadPoolExecutor(4) as pool:
            runs = list(pool.map(lambda job: (job[1], job[0].run(IDS, plan=job[1])), jobs))
        assert all(torch.equal(run.logits, wanted[chosen]) for chosen, run in runs)


def test_models_that_cannot_be_opened(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    for model, says in [
        ("nobody/nothing", "no model 'nobody/nothing'"), (tmp_path / "empty", "does not hold a decoder"),
        (3, "is not a model"), (torch.nn.Linear(2, 2), "Linear"),
    ]:  # fmt: skip
        with pytest.raises(ModelError, match=says) as caught:
            wb.open(model, store=":memory:")
        assert caught.value.remedy
    with pytest.raises(SetupError, match="no kernels called 'fast'"):
        wb.open(build_tiny("olmoe"), store=":memory:", kernels="fast")
    with pytest.raises(SetupError, match="triton kernels cannot be used"):
        wb.open(build_tiny("llama"), store=":memory:", kernels="triton")


def test_a_closed_bench_says_so(bench: Any) -> None:
    one = bench("olmoe")
    one.close()
    with pytest.raises(WorkbenchError, match="closed"):
        one.run(IDS)
    one.close()


@pytest.mark.slow
def test_kernels_reference_and_cpu_agree(bench: Any) -> None:
    runs = [bench(build_tiny("olmoe"), kernels=name).run(IDS) for name in ("reference", "cpu", "model")]
    for run in runs[1:]:
        torch.testing.assert_close(run.logits, runs[0].logits, rtol=1e-4, atol=1e-4)
    assert runs[1].bench.kernels == "cpu" and runs[1].bench.isa
    assert runs[0].bench.sql("SELECT kernels FROM run").fetchall() == [("reference",)]
