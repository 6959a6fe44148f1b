"""Masks as they are executed: each against the model with that part really changed, by hand."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import build_tiny
from torch import Tensor

import workbench as wb
from workbench.errors import EditRefused, PlanError
from workbench.runtime import weight_masks
from workbench.runtime.artefacts import Artefact, opened
from workbench.runtime.weight_masks import exchanged, overlap

IDS = [5, 17, 3, 60, 22, 9, 41, 8, 33, 2, 19, 50]
OTHER = [(7 * n * n + 3 * n) % 64 for n in range(40)]


def altered(family: str, change: Callable[[Any], Any], ids: list[int] = IDS) -> Tensor:
    """Logits of a fresh model after ``change``."""
    model = build_tiny(family)
    with torch.no_grad():
        change(model)
        return model(torch.tensor([ids])).logits[0]


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4)


def gated_by(model: Any, keep: Callable[[Tensor, Tensor, Tensor, Any], tuple[Tensor, Tensor]]) -> None:
    """Let the gated MLPs of layer 1 drop inputs and neurons: ``keep(x, gate, neurons, weights)`` gives what is left of
    inputs (before the products) and of neurons."""
    mlp = model.model.layers[1].mlp

    def run(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        act = torch.nn.functional.silu
        x, _ = keep(x, x, x, (gate, up, down, "input"))
        g = act(x @ gate.T)
        h = g * (x @ up.T)
        _, h = keep(x, g, h, (gate, up, down, "neuron"))
        return h @ down.T

    if hasattr(mlp, "gate_proj"):
        mlp.forward = lambda x: run(x, mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight)
        return
    bank = mlp.experts

    def experts(hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        out = torch.zeros_like(hidden)
        width = bank.down_proj.shape[2]
        for t in range(len(hidden)):
            for e, w in zip(ids[t].tolist(), weights[t], strict=True):
                both = bank.gate_up_proj[e]
                out[t] += w * run(hidden[t : t + 1], both[:width], both[width:], bank.down_proj[e])[0]
        return out

    bank.forward = experts


@pytest.mark.slow
@pytest.mark.parametrize("family", ["olmoe", "llama"])
def test_masked_neurons_are_columns_of_zeros(bench: Any, family: str) -> None:
    def zero(model: Any) -> None:
        mlp = model.model.layers[1].mlp
        weight = mlp.down_proj.weight if family == "llama" else mlp.experts.down_proj
        weight[..., [0, 5, 7]] = 0

    one = bench(family)
    run = one.run(IDS, wb.mask.neurons(1, [0, 5, 7]))
    close(run.logits, altered(family, zero))
    done, left = one.sql(
        "SELECT executed, skipped FROM cost WHERE run = ? AND op = 'sparse_mlp'", [run.id]
    ).fetchone()
    assert left / (done + left) == pytest.approx(3 / 48)
    # By magnitude: the columns with the smallest norm, in every expert its own.
    half = one.run(IDS, wb.mask.neurons(1, ratio=0.5, criterion="magnitude"))

    def smallest(model: Any) -> None:
        mlp = model.model.layers[1].mlp
        for weight in [mlp.down_proj.weight] if family == "llama" else mlp.experts.down_proj:
            weight[:, weight.norm(dim=0).argsort()[:24]] = 0

    close(half.logits, altered(family, smallest))


def test_neurons_of_one_expert_and_of_some_tokens(bench: Any) -> None:
    one = bench("olmoe")
    run = one.run(IDS, wb.mask.neurons(1, list(range(48)), expert=3))

    def zero(model: Any) -> None:
        model.model.layers[1].mlp.experts.down_proj[3] = 0

    close(run.logits, altered("olmoe", zero))
    base, some = one.run(IDS), one.run(IDS, wb.mask.neurons(1, list(range(48)), tokens=[4]))
    assert torch.equal(base.logits[:4], some.logits[:4])
    assert not torch.allclose(base.logits[4], some.logits[4], atol=1e-3)
    close(some.logits[4], one.run(IDS, wb.skip.mlp(1, tokens=[4])).logits[4])


@pytest.mark.slow
def test_masked_experts_and_what_stands_for_them(bench: Any) -> None:
    one = bench("olmoe")
    source = one.calibrate([OTHER, IDS, OTHER[::-1]])
    known = opened(source, "calibration").tensors

    def zero(model: Any) -> None:
        model.model.layers[1].mlp.experts.down_proj[[1, 4]] = 0

    run = one.run(IDS, wb.mask.experts(1, [1, 4]))
    close(run.logits, altered("olmoe", zero))
    used = {
        e
        for (e,) in one.sql(
            "SELECT DISTINCT expert FROM routing WHERE run = ? AND layer = 1", [run.id]
        ).fetchall()
    }
    assert not used & {1, 4}
    dropped = one.sql("SELECT sum(dropped) FROM router WHERE run = ? AND layer = 1", [run.id]).fetchone()[0]
    native = one.sql(
        "SELECT count(*) FROM routing WHERE run = ? AND layer = 1 AND expert IN (1, 4)", [one.run(IDS).id]
    ).fetchone()[0]
    assert dropped == native > 0
    weights = "SELECT position, expert, weight FROM routing WHERE run = ? AND layer = 1"
    before = {(p, e): w for p, e, w in one.sql(weights, [one.run(IDS).id]).fetchall()}
    assert all(before[p, e] == w for p, e, w in one.sql(weights, [run.id]).fetchall())

    def instead(value: Callable[[int, Tensor], Tensor]) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            zero(model)
            bank = model.model.layers[1].mlp.experts
            own = bank.forward

            def forward(hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
                out = own(hidden, ids, weights)
                for t in range(len(hidden)):
                    for e, w in zip(ids[t].tolist(), weights[t], strict=True):
                        if e in (1, 4):
                            out[t] += w * value(e, hidden[t])
                return out

            bank.forward = forward

        return change

    identity = one.run(IDS, wb.mask.experts(1, [1, 4], replacement="identity"))
    close(identity.logits, altered("olmoe", instead(lambda e, x: x)))
    mean = one.run(IDS, wb.mask.experts(1, [1, 4], replacement="mean", source=source))
    close(mean.logits, altered("olmoe", instead(lambda e, x: known[f"1.expert.{e}.out.mean"])))
    drawn = wb.mask.experts(1, [1, 4], replacement="resample", source=source)
    again = one.run(IDS, drawn).logits
    assert torch.equal(again, one.run(IDS, drawn).logits)
    assert not torch.allclose(again, mean.logits, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["olmoe", "llama"])
def test_masked_heads_become_their_mean_or_a_sample(bench: Any, family: str) -> None:
    one = bench(family)
    source = one.calibrate([OTHER, IDS])
    seen: list[Tensor] = []

    def watch(model: Any) -> None:
        model.model.layers[1].self_attn.o_proj.register_forward_pre_hook(
            lambda _, args: seen.append(args[0][0])
        )

    altered(family, watch, OTHER)
    altered(family, watch, IDS)
    mean = torch.cat(seen).reshape(-1, 4, 8).mean(0)

    def replace(model: Any) -> None:
        def hook(_: Any, args: Any) -> Any:
            heads = args[0].reshape(1, -1, 4, 8).clone()
            heads[:, :, [0, 2]] = mean[[0, 2]]
            return (heads.reshape(args[0].shape),)

        model.model.layers[1].self_attn.o_proj.register_forward_pre_hook(hook)

    run = one.run(IDS, wb.mask.heads(1, [0, 2], replacement="mean", source=source))
    close(run.logits, altered(family, replace))
    drawn = [
        one.run(IDS, wb.mask.heads(1, [0], replacement="resample", source=source, seed=s)).logits
        for s in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    for criterion in ("random", "magnitude", "activation"):
        edit = wb.mask.heads(
            1, ratio=0.5, criterion=criterion, source=source if criterion == "activation" else None
        )
        assert not torch.equal(one.run(IDS, edit).logits, one.run(IDS).logits)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["olmoe", "llama"])
def test_masked_channels_hold_what_stands_for_them(bench: Any, family: str) -> None:
    one = bench(family)
    width, channels = one.anatomy.hidden_size, [1, 4, 9]
    source = one.calibrate([OTHER])
    known = opened(source, "calibration").tensors
    stream = one.run(OTHER, record=None).tensor("attn_out", layers=[1])[0]
    torch.testing.assert_close(known["1.channels.attn_out.mean"], stream.mean(0), rtol=1e-4, atol=1e-5)

    def with_channels(site: str, value: Tensor) -> Callable[[Any], Any]:
        def change(model: Any) -> None:
            layer = model.model.layers[1]

            def hook(_: Any, __: Any, output: Any) -> Any:
                held = (output[0] if isinstance(output, tuple) else output).clone()
                held[..., channels] = value
                return (held, *output[1:]) if isinstance(output, tuple) else held

            where = {"resid_post": layer, "attn_out": layer.self_attn, "mlp_out": layer.mlp}
            if site == "resid_pre":
                model.model.layers[0].register_forward_hook(hook)
            else:
                where[site].register_forward_hook(hook)

        return change

    for site in ("resid_pre", "attn_out", "mlp_out", "resid_post"):
        run = one.run(IDS, wb.mask.channels(1, channels, site=site))
        close(run.logits, altered(family, with_channels(site, torch.zeros(3))))
        mean = known[f"1.channels.{site}.mean"][channels]
        run = one.run(IDS, wb.mask.channels(1, channels, site=site, replacement="mean", source=source))
        close(run.logits, altered(family, with_channels(site, mean)))
    sampled = one.run(IDS, wb.mask.channels(1, channels, replacement="resample", source=source))
    held = sampled.tensor("resid_post", layers=[1])[0][:, channels]
    drawn = known["1.channels.resid_post.samples"][:, channels]
    assert all(any(torch.allclose(row, one_drawn, atol=1e-5) for one_drawn in drawn) for row in held)
    layer = build_tiny(family).model.layers[1]
    norm = layer.self_attn.o_proj.weight.detach().norm(dim=1)
    least = norm.argsort()[: width // 4].sort().values.tolist()
    plan = wb.mask.channels(1, ratio=0.25, criterion="magnitude", site="attn_out")
    close(one.run(IDS, plan).logits, one.run(IDS, wb.mask.channels(1, least, site="attn_out")).logits)
    quiet = known["1.channels.resid_post.absolute"].argsort()[: width // 4].sort().values.tolist()
    plan = wb.mask.channels(1, ratio=0.25, criterion="activation", source=source)
    close(one.run(IDS, plan).logits, one.run(IDS, wb.mask.channels(1, quiet)).logits)
    text = one.generate(IDS, 3, wb.mask.channels([1, 2], ratio=0.5, seed=2))
    close(text.logits, one.run(text.tokens[:-1].tolist(), text.plan).logits)
    with pytest.raises(EditRefused, match="names channel"):
        one.run(IDS, wb.mask.channels(1, width))
    with pytest.raises(PlanError, match="channel has no input"):
        wb.mask.channels(1, 0, replacement="identity")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["olmoe", "llama"])
def test_hidden_tokens_get_no_attention(bench: Any, family: str) -> None:
    one = bench(family)
    run = one.run(IDS, wb.mask.tokens([1, 2], tokens=[0, 3, 4]))

    def hide(model: Any) -> None:
        for layer in model.model.layers[1:]:

            def hook(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
                seen = torch.ones(12, 12, dtype=torch.bool).tril()
                seen[:, [0, 3, 4]] = False
                seen.fill_diagonal_(True)
                return args, kwargs | {"attention_mask": seen[None, None]}

            layer.self_attn.register_forward_pre_hook(hook, with_kwargs=True)

    close(run.logits, altered(family, hide))
    assert torch.equal(one.run(IDS, wb.mask.tokens([1], tokens=[11])).logits, one.run(IDS).logits)
    text = one.generate(IDS, 4, wb.mask.tokens("all", tokens=[2, 13]))
    whole = one.run(text.tokens[:-1].tolist(), wb.mask.tokens("all", tokens=[2, 13]))
    close(text.logits, whole.logits)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["olmoe", "llama"])
def test_activations_below_their_thresholds_are_left_out(bench: Any, family: str) -> None:
    one = bench(family)
    source = one.calibrate([OTHER])
    points = opened(source, "calibration").tensors

    def bound(what: str, share: float) -> float:
        return (
            float(torch.lerp(points[f"1.quantile.{what}"][100], points[f"1.quantile.{what}"][101], 0.0))
            if share == 0.5
            else 0
        )

    def teal(x: Tensor, gate: Tensor, h: Tensor, weights: Any) -> tuple[Tensor, Tensor]:
        if weights[3] == "input":
            return x * (x.abs() > bound("input", 0.5)), h
        return x, h * (h.abs() > bound("neuron", 0.5))

    def wina(x: Tensor, gate: Tensor, h: Tensor, weights: Any) -> tuple[Tensor, Tensor]:
        if weights[3] == "input":
            norm = torch.cat([weights[0], weights[1]]).norm(dim=0)
            return x * (x.abs() * norm > bound("weighted_input", 0.5)), h
        return x, h * (h.abs() * weights[2].norm(dim=0) > bound("weighted_neuron", 0.5))

    def cats(x: Tensor, gate: Tensor, h: Tensor, weights: Any) -> tuple[Tensor, Tensor]:
        return x, h if weights[3] == "input" else h * (gate.abs() > bound("gate", 0.5))

    for method, reference in (("magnitude", teal), ("weight-informed", wina), ("gate", cats)):
        run = one.run(IDS, wb.mask.activations(1, method, sparsity=0.5, source=source))
        close(run.logits, altered(family, lambda model, keep=reference: gated_by(model, keep)))
        done, left = one.sql(
            "SELECT executed, skipped FROM cost WHERE run = ? AND op = 'sparse_mlp'", [run.id]
        ).fetchone()
        assert 0.3 < left / (done + left) < 0.7, method
    given = one.run(IDS, wb.mask.activations(1, "given", neurons=range(8)))
    close(given.logits, one.run(IDS, wb.mask.neurons(1, range(8, 48))).logits)
    plan = wb.mask.activations("all", "magnitude", threshold=0.02, input_threshold=0.1)
    text = one.generate(IDS, 4, plan)
    close(text.logits, one.run(text.tokens[:-1].tolist(), plan).logits)
    batch = one.run(
        [IDS, IDS[:5], IDS[3:]], plans=[plan, None, wb.mask.activations(1, "random", sparsity=0.5)]
    )
    for run in batch:
        close(run.logits, one.run(run.tokens.tolist(), run.plan).logits)


def test_rank_aware_activations_keep_what_the_first_directions_carry(bench: Any) -> None:
    one = bench("llama")
    source = one.calibrate([OTHER])
    base = one.run(IDS, record=None).logits
    full = one.run(
        IDS, wb.mask.activations(1, "rank-aware", sparsity=0.5, source=source, rank=48), record=None
    ).logits
    close(full, base)
    errors = [
        float((one.run(IDS, wb.mask.activations(1, "rank-aware", sparsity=0.7, source=source, rank=r), record=None).logits
               - base).norm())
        for r in (1, 16, 31)
    ]  # fmt: skip
    assert errors[0] > errors[1] > errors[2]
    run = one.run(IDS, wb.mask.activations(1, "rank-aware", sparsity=0.5, source=source, rank=4))
    done, left, masked = one.sql(
        "SELECT executed, skipped, masked FROM cost WHERE run = ? AND op = 'sparse_mlp'", [run.id]
    ).fetchone()
    assert (done, left) == (
        48 * len(IDS),
        0,
    ) and 0.3 < masked / done < 0.7  # computed and masked, and said so


@pytest.mark.slow
@pytest.mark.parametrize("family", ["olmoe", "llama"])
def test_masked_weights_are_zeros_and_the_weights_stay(bench: Any, family: str) -> None:
    model = build_tiny(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = bench(model)

    def smallest(weight: Tensor, ratio: float) -> None:
        count = round(ratio * weight.shape[1])
        weight.scatter_(1, weight.abs().argsort(dim=1)[:, :count], 0.0)

    def halve(model: Any) -> None:
        layer = model.model.layers[1]
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            smallest(getattr(layer.self_attn, name).weight, 0.5)
        if family == "llama":
            for name in ("gate_proj", "up_proj", "down_proj"):
                smallest(getattr(layer.mlp, name).weight, 0.5)
        else:
            for e in range(8):
                smallest(layer.mlp.experts.gate_up_proj[e], 0.5)
                smallest(layer.mlp.experts.down_proj[e], 0.5)

    run = one.run(IDS, wb.mask.weights(1, ratio=0.5))
    close(run.logits, altered(family, halve))
    done, left = one.sql(
        "SELECT sum(executed), sum(skipped) FROM cost WHERE run = ? AND op = 'masked_matmul'", [run.id]
    ).fetchone()
    assert left / (done + left) == pytest.approx(0.5) and done > 0
    sums = "SELECT sum(executed), sum(skipped), sum(masked) FROM cost WHERE run = ? AND op = 'masked_matmul'"
    layer = one.model.model.layers[1]
    if family == "olmoe":  # two experts a token, and the four projections of its attention
        each = (
            2 * (layer.mlp.experts.gate_up_proj[0].numel() + layer.mlp.experts.down_proj[0].numel())
            + 4 * 32 * 32
        )
        assert one.sql(sums, [run.id]).fetchone() == (12 * each / 2, 12 * each / 2, 0)

    def two_of_four(model: Any) -> None:
        weight = model.model.layers[1].self_attn.v_proj.weight
        groups = weight.view(len(weight), -1, 4)
        groups.scatter_(-1, groups.abs().argsort(dim=-1)[..., :2], 0.0)

    close(
        one.run(IDS, wb.mask.weights(1, "v_proj", shape="n:m", n=2, m=4)).logits, altered(family, two_of_four)
    )
    batch = one.run(
        [IDS, IDS[2:9]], plans=[wb.mask.weights(1, ratio=0.5), wb.mask.weights(1, "o_proj", ratio=0.25)]
    )
    for row in batch:
        close(row.logits, one.run(row.tokens.tolist(), row.plan).logits)
    nothing = one.run(IDS, wb.mask.weights(1, ratio=0.0))
    assert torch.equal(nothing.logits, one.run(IDS, record=None).logits)
    one.close()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_mask_of_weights_is_computed_once_and_anew_where_the_weight_was_written_to(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_tiny("llama")
    one = bench(model)
    made: list[str] = []
    own = weight_masks._kept
    monkeypatch.setattr(weight_masks, "_kept", lambda *args: made.append(args[3]) or own(*args))
    plan = wb.mask.weights(1, ["q_proj", "down_proj"], ratio=0.5)
    first = one.run(IDS, plan, record=None)
    assert sorted(made) == ["down_proj", "q_proj"]
    assert torch.equal(one.run(IDS, plan, record=None).logits, first.logits) and len(made) == 2
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight.mul_(torch.linspace(1, 3, model.config.hidden_size))
    assert not torch.equal(one.run(IDS, plan, record=None).logits, first.logits)
    assert made[2:] == ["q_proj"]
    for seed in range(weight_masks.REMEMBERED):
        one.run(IDS, wb.mask.weights(1, "q_proj", ratio=0.5, criterion="random", seed=seed), record=None)
    one.run(IDS, plan, record=None)
    assert made[-1] == "q_proj", "only so many are remembered"


def test_activation_weighted_masks_use_the_recorded_norms_and_exchanges_lessen_the_error(bench: Any) -> None:
    one = bench("llama")
    source = one.calibrate([OTHER, IDS])
    seen: list[Tensor] = []

    def watch(model: Any) -> None:
        model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))

    altered("llama", watch, OTHER)
    altered("llama", watch, IDS)
    inputs = torch.cat(seen)

    def wanda(model: Any) -> None:
        weight = model.model.layers[1].mlp.down_proj.weight
        weight.scatter_(1, (weight.abs() * inputs.norm(dim=0)).argsort(dim=1)[:, :24], 0.0)

    edit = wb.mask.weights(1, "down_proj", ratio=0.5, criterion="activation-weighted", source=source)
    close(one.run(IDS, edit).logits, altered("llama", wanda))
    weight = build_tiny("llama").model.layers[1].mlp.down_proj.weight.detach()
    harm = weight.abs() * inputs.norm(dim=0)
    kept = torch.zeros_like(weight, dtype=torch.bool).scatter(1, harm.topk(24, dim=1).indices, True)
    mean, variance = inputs.mean(0), inputs.var(0, unbiased=False)
    for group in (None, 4):
        other = exchanged(weight, kept, harm, mean, variance, group)
        assert torch.equal(other.sum(1), kept.sum(1)) and not torch.equal(other, kept)
        if group:
            assert torch.equal(other.unflatten(1, (-1, 4)).sum(-1), kept.unflatten(1, (-1, 4)).sum(-1))
        error = [((weight * mean) * ~m).sum(1).abs() for m in (kept, other)]
        assert bool((error[1] <= error[0] + 1e-6).all()) and float(error[1].sum()) < float(error[0].sum())
    again = one.run(
        IDS, wb.mask.weights(1, "down_proj", ratio=0.5, criterion="prune-and-grow", source=source)
    )
    assert not torch.equal(again.logits, one.run(IDS, edit).logits)
    masks = one.add(Artefact("masks", {"1.down_proj": kept}))
    given = one.run(IDS, wb.mask.weights(1, "down_proj", criterion="given", source=masks))
    close(given.logits, one.run(IDS, edit).logits)
    random = [torch.rand(64, 64, generator=torch.Generator().manual_seed(s)) < 0.3 for s in (0, 1)]
    found, chance = overlap(*random)
    assert chance == pytest.approx(0.3 / (2 - 0.3), abs=0.01) and found == pytest.approx(chance, abs=0.03)


@pytest.mark.slow
def test_calibrations_are_named_by_content_and_come_back_from_file_and_store(
    bench: Any, tmp_path: Any
) -> None:
    one = bench("llama")
    source = one.calibrate([OTHER])
    assert one.calibrate([OTHER]) == source
    path = opened(source, "calibration").save(tmp_path)
    edit = wb.mask.activations(1, sparsity=0.5, source=source)
    run = one.run(IDS, edit)
    text = run.plan.to_json()
    other = bench("llama")
    _forget(source)
    with pytest.raises(PlanError, match="is not at hand"):
        other.run(IDS, edit)
    assert other.add(path) == source
    assert torch.equal(other.run(IDS, wb.Plan.from_json(text)).logits, run.logits)
    _forget(source)
    assert torch.equal(one.run(IDS, wb.Plan.from_json(text)).logits, run.logits)
    with pytest.raises(PlanError, match="of the kind calibration, not masks"):
        one.run(IDS, wb.mask.weights(1, "down_proj", criterion="given", source=source))
    array = wb.blob(list(range(300))).blob
    with pytest.raises(PlanError, match="an array, not a calibration"):
        one.run(IDS, edit.model_copy(update={"source": array}))
    path.rename(tmp_path / "0000000000000000.safetensors")
    with pytest.raises(PlanError, match="not what its name says"):
        other.add(tmp_path / "0000000000000000.safetensors")
    (tmp_path / "1.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(PlanError, match="holds no tensors of a plan"):
        other.add(tmp_path / "1.safetensors")


def _forget(name: str) -> None:
    """What another process would not know."""
    importlib.import_module("workbench.interventions.blob")._ARRAYS.pop(name)
    importlib.import_module("workbench.runtime.artefacts")._opened.cache_clear()


def test_refusals(bench: Any) -> None:
    for make, words in (
        (lambda: wb.mask.heads(1), "name the units"),
        (lambda: wb.mask.heads(1, [0], replacement="mean"), "needs a source"),
        (lambda: wb.mask.heads(1, [0], replacement="identity"), "no input of its own shape"),
        (lambda: wb.mask.activations(1), "either a sparsity or thresholds"),
        (lambda: wb.mask.activations(1, sparsity=0.5), "needs a source"),
        (lambda: wb.mask.activations(1, "rank-aware", threshold=1.0), "rank goes with"),
        (lambda: wb.mask.attention(1, "pooled"), "either keep or mass"),
        (lambda: wb.mask.attention(1, "window"), "go together"),
        (lambda: wb.mask.attention(1, "random", mass=0.5), "give keep"),
        (lambda: wb.mask.weights(1, "router", ratio=0.5), "is not one of"),
        (lambda: wb.mask.weights(1, shape="n:m", ratio=0.5), "give n and m"),
        (lambda: wb.mask.weights(1, ratio=0.5, criterion="activation-weighted"), "needs a source"),
    ):
        with pytest.raises(PlanError, match=words):
            make()
    one = bench("olmoe")
    source = one.calibrate([IDS])
    for edit, words in (
        (wb.mask.tokens("all"), "no text is read"),
        (wb.mask.activations(1, "rank-aware", threshold=1.0, rank=2), "dense MLPs"),
        (wb.mask.neurons(1, [0], replacement="mean", source=source), "only be masked with zero"),
        (wb.mask.neurons(1, [0], expert=9), "expert 9"),
        (wb.mask.weights(1, "gate_proj", ratio=0.5), "no projection called"),
        (wb.mask.weights(1, shape="n:m", n=2, m=5), "no groups of 5"),
        (wb.Plan([wb.mask.weights(1, ratio=0.5), wb.mask.neurons(1, [0])]), "cannot hold together"),
    ):
        with pytest.raises(EditRefused, match=words):
            one.run(IDS, edit)
    with pytest.raises(EditRefused, match="looks at later tokens"):
        one.generate(IDS, 2, wb.mask.attention(1, "pooled", keep=0.5))
