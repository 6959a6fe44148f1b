"""Features of a sparse autoencoder: read from disk as SAELens writes them, edited with the error term kept."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import build_tiny
from torch import Tensor

import workbench as wb
from workbench.errors import EditRefused, PlanError
from workbench.runtime import artefacts
from workbench.runtime.artefacts import opened
from workbench.runtime.sae import Sae, load_sae

IDS = [5, 17, 3, 60, 22, 9, 41, 8]
FEATURES = 24
FORMS: dict[str, dict[str, Any]] = {
    "standard": {}, "jumprelu": {"apply_b_dec_to_input": True}, "gated": {"normalize_activations": "layer_norm"},
    "topk": {"k": 5, "normalize_activations": "constant_norm_rescale", "apply_b_dec_to_input": True},
}  # fmt: skip


def write(folder: Path, width: int, architecture: str = "standard", **config: Any) -> dict[str, np.ndarray]:
    """An autoencoder on disk; its weights in float64."""
    draw = torch.Generator().manual_seed(len(architecture))

    def some(*shape: int, by: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=draw) * by

    weights = {
        "W_enc": some(width, FEATURES, by=4.0),
        "W_dec": some(FEATURES, width, by=0.2),
        "b_dec": some(width, by=0.1),
    }
    for name in {"gated": ("b_gate", "b_mag", "r_mag"), "jumprelu": ("b_enc", "threshold")}.get(
        architecture, ("b_enc",)
    ):
        weights[name] = some(FEATURES, by=0.3).abs() if name == "threshold" else some(FEATURES, by=0.3)
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "sae_weights.safetensors")
    known = {"architecture": architecture, "d_in": width, "d_sae": FEATURES, "normalize_activations": "none",
             "apply_b_dec_to_input": False, "metadata": {"hook_name": "blocks.1.hook_resid_post"}}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(known | config))
    return {name: value.double().numpy() for name, value in weights.items()}


def by_hand(
    w: dict[str, np.ndarray], h: np.ndarray, architecture: str, config: dict[str, Any]
) -> tuple[np.ndarray, float]:
    """Features of one token's stream [H], neuron by neuron; and the scale by which it was divided."""
    size, x = 1.0, h
    if config.get("normalize_activations") == "layer_norm":
        size = float(np.sqrt(((h - h.mean()) ** 2).sum() / (len(h) - 1)))
        x = (h - h.mean()) / (size + 1e-5)
    if config.get("normalize_activations") == "constant_norm_rescale":
        size = float(np.sqrt((h**2).sum() / len(h)))
        x = h / size
    if config.get("apply_b_dec_to_input"):
        x = x - w["b_dec"]
    drive = np.array([float(x @ w["W_enc"][:, m]) for m in range(FEATURES)])
    if architecture == "gated":
        much = np.maximum(drive * np.exp(w["r_mag"]) + w["b_mag"], 0)
        return np.where(drive + w["b_gate"] > 0, much, 0), size
    drive = drive + w["b_enc"]
    if architecture == "topk":
        kept = sorted(range(FEATURES), key=lambda m: -drive[m])[: config["k"]]
        return np.array([max(drive[m], 0.0) if m in kept else 0.0 for m in range(FEATURES)]), size
    bound = w["threshold"] if architecture == "jumprelu" else np.zeros(FEATURES)
    return np.where(drive > bound, np.maximum(drive, 0), 0), size


def logits_by_hand(
    w: dict[str, np.ndarray], architecture: str, config: dict[str, Any], wanted: Any
) -> Tensor:
    """Logits of a fresh model whose block 1 gives ``h + size * sum (wanted(m, z_m) - z_m) d_m``."""
    model = build_tiny("llama")

    def hook(_: Any, __: Any, output: Any) -> Any:
        h = output[0] if isinstance(output, tuple) else output
        new = h[0].double().numpy().copy()
        for t, row in enumerate(h[0].double().numpy()):
            z, size = by_hand(w, row, architecture, config)
            for m in range(FEATURES):
                new[t] += size * (wanted(m, z[m]) - z[m]) * w["W_dec"][m]
        new = torch.tensor(new).to(h.dtype).unsqueeze(0)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    model.model.layers[1].register_forward_hook(hook)
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0]


@pytest.mark.parametrize("form", FORMS)
def test_features_are_edited_and_the_error_term_stays(bench: Any, form: str, tmp_path: Path) -> None:
    one = bench("llama")
    weights = write(tmp_path / form, one.anatomy.hidden_size, form, **FORMS[form])
    name = one.add(tmp_path / form)
    base = one.run(IDS, record=None)
    stream = base.tensor("resid_post", layers=1)
    z = Sae.of(opened(name, "sae")).encode(stream)
    hand = np.stack([by_hand(weights, row, form, FORMS[form])[0] for row in stream.double().numpy()])
    np.testing.assert_allclose(z.numpy(), hand, rtol=1e-4, atol=1e-4)
    busy = [int(m) for m in z.sum(0).topk(2).indices]
    for op, value, wanted in (
        ("ablate", 1.0, lambda _: 0.0), ("add", 3.0, lambda found: found + 3.0), ("clamp", 2.0, lambda _: 2.0),
    ):  # fmt: skip
        edit = wb.mask.direction(1, sae=name, features=busy, op=op, value=value)
        run = one.run(IDS, edit)
        want = logits_by_hand(
            weights, form, FORMS[form], lambda m, found, w=wanted: w(found) if m in busy else found
        )
        torch.testing.assert_close(run.logits, want, rtol=2e-3, atol=2e-3)
        assert not torch.allclose(run.logits, base.logits, atol=1e-2), f"{op} has no effect"
    silent = [m for m in range(FEATURES) if float(z[:, m].abs().max()) == 0.0]
    if silent:  # what is off already is left alone, to the bit
        assert torch.equal(one.run(IDS, wb.mask.direction(1, sae=name, features=silent)).logits, base.logits)


def test_the_rebuilt_stream_and_its_error_are_the_stream(bench: Any, tmp_path: Path) -> None:
    one = bench("llama")
    for form, config in FORMS.items():
        weights = write(tmp_path / form, one.anatomy.hidden_size, form, **config)
        sae = load_sae(tmp_path / form)
        assert sae.hook == "blocks.1.hook_resid_post" and sae.features == FEATURES
        stream = one.run(IDS, record=None).tensor("resid_post", layers=1)
        z = sae.encode(stream)
        mean = (
            stream.double().mean(-1, keepdim=True).numpy()
            if config.get("normalize_activations") == "layer_norm"
            else 0.0
        )
        sizes = np.array([by_hand(weights, row, form, config)[1] for row in stream.double().numpy()])[:, None]
        want = (z.double().numpy() @ weights["W_dec"] + weights["b_dec"]) * sizes + mean
        np.testing.assert_allclose(sae.decode(z, stream).numpy(), want, rtol=1e-4, atol=1e-4)
        error = stream - sae.decode(z, stream)
        less = z.clone()
        less[:, 3] = 0.0
        torch.testing.assert_close(
            sae.written(stream, (3,), "ablate", 1.0), sae.decode(less, stream) + error, rtol=1e-4, atol=1e-4
        )


@pytest.mark.slow
def test_a_plan_with_features_is_scoped_saved_and_replayed_from_the_store(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench("llama")
    write(tmp_path / "sae", one.anatomy.hidden_size)
    plan = wb.Plan(
        [
            wb.mask.direction(
                1, sae=one.add(tmp_path / "sae"), features=[2, 5], op="clamp", value=4.0, tokens=[6]
            )
        ]
    )
    run = one.run(IDS, plan)
    base = one.run(IDS, record=None)
    assert torch.equal(run.logits[:6], base.logits[:6]) and not torch.equal(run.logits[6:], base.logits[6:])
    again = wb.Plan.from_json(plan.to_json())
    assert again.hash == plan.hash and "features 2, 5" in plan.describe()
    file = tmp_path / "runs.duckdb"
    one.snapshot(file)
    monkeypatch.setattr(
        import_module("workbench.interventions.blob"), "_ARRAYS", {}
    )  # a process that never saw the folder
    artefacts._opened.cache_clear()
    other = wb.open(build_tiny("llama"), store=file)
    try:
        assert torch.equal(other.run(IDS, again).logits, run.logits), (
            "the file of a plan travels in the store"
        )
    finally:
        other.close()
    with pytest.raises(PlanError, match="not at hand"):
        one.run(IDS, wb.mask.direction(1, sae="0" * 32, features=1))


def test_refusals(bench: Any, tmp_path: Path) -> None:
    one = bench("llama")
    width = one.anatomy.hidden_size
    for config, words in (
        ({"normalize_activations": "expected_average_only_in"}, "expected_average_only_in"),
        ({"rescale_acts_by_decoder_norm": True}, "rescaled"), ({"reshape_activations": "hook_z"}, "hook_z"),
        ({"architecture": "temporal"}, "temporal"), ({"activation_fn_str": "tanh-relu"}, "tanh-relu"),
        ({"architecture": "jumprelu"}, "no threshold"),
    ):  # fmt: skip
        write(
            tmp_path / "wrong",
            width,
            **({"architecture": "standard"} | config) if "architecture" not in config else {},
        )
        if "architecture" in config:
            known = json.loads((tmp_path / "wrong" / "cfg.json").read_text())
            (tmp_path / "wrong" / "cfg.json").write_text(json.dumps(known | config))
        with pytest.raises(PlanError, match=words):
            one.add(tmp_path / "wrong")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PlanError, match="no sparse autoencoder"):
        load_sae(tmp_path / "empty")
    write(tmp_path / "sae", width)
    name = one.add(tmp_path / "sae")
    with pytest.raises(EditRefused, match="names feature 24"):
        one.run(IDS, wb.mask.direction(1, sae=name, features=FEATURES))
    write(tmp_path / "wide", width + 1)
    with pytest.raises(EditRefused, match="reads"):
        one.run(IDS, wb.mask.direction(1, sae=one.add(tmp_path / "wide"), features=1))
    for fields in ({}, {"sae": name}, {"vector": [1.0] * width, "sae": name, "features": 1}, {"features": 1}):
        with pytest.raises(PlanError):
            wb.mask.direction(1, **fields)


def test_older_files_name_their_top_k_as_an_activation(tmp_path: Path) -> None:
    write(tmp_path / "old", 8, activation_fn_str="topk", activation_fn_kwargs={"k": 3})
    sae = load_sae(tmp_path / "old")
    assert (sae.architecture, sae.k) == ("topk", 3)
    assert (sae.encode(torch.randn(4, 8)) > 0).sum(-1).max() <= 3
