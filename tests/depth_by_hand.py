"""A decoder read token by token with keys and values in plain dictionaries: the reference for skips and repeats.

It uses a Llama or OLMoE model's own weights, and nothing of the workbench: what runs is said by a function, what is
remembered is a dictionary entry or its absence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb


def logits_by_hand(
    model: Any, ids: list[int], visits: Callable[[int, int], int], *, kv: str = "absent", repeat_kv: str = "per-visit",
    attention: Callable[[int, int], bool] = lambda layer, token: True,
    mlp: Callable[[int, int], bool] = lambda layer, token: True,
) -> Tensor:  # fmt: skip
    """Logits [S, V] where token ``t`` goes ``visits(layer, t)`` times through each block."""
    layers = model.model.layers
    store: dict[tuple[int, int], dict[int, tuple[Tensor, Tensor]]] = {}
    out = []
    with torch.no_grad():
        for t, token in enumerate(ids):
            h = model.model.embed_tokens(torch.tensor([[token]]))
            cos, sin = model.model.rotary_emb(h, torch.tensor([[t]]))
            for n, layer in enumerate(layers):
                count = visits(n, t)
                here = store.setdefault((n, 0), {})
                if count == 0 or not attention(n, t):
                    if kv == "compute":
                        here[t] = _keys(layer, layer.input_layernorm(h), cos, sin)
                    elif kv == "copy-last" and t in store.get((n - 1, 0), {}):
                        here[t] = store[n - 1, 0][t]
                for visit in range(count):
                    if attention(n, t):
                        x = layer.input_layernorm(h)
                        own = _keys(layer, x, cos, sin)
                        if visit == 0 or repeat_kv == "overwrite":
                            here[t] = own
                        seen = here
                        if visit and repeat_kv == "per-visit":
                            seen = store.setdefault((n, visit), {})
                            seen[t] = own
                        h = h + _attend(layer, x, cos, sin, [seen[s] for s in sorted(seen)])
                    if mlp(n, t):
                        h = h + layer.mlp(layer.post_attention_layernorm(h))
            out.append(model.lm_head(model.model.norm(h))[0, 0])
    return torch.stack(out)


def _project(layer: Any, x: Tensor, name: str) -> Tensor:
    attention = layer.self_attn
    value = getattr(attention, f"{name}_proj")(x)
    norm = getattr(attention, f"{name}_norm", None)
    value = value if norm is None else norm(value)
    return value.view(1, 1, -1, attention.head_dim).transpose(1, 2)


def _keys(layer: Any, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    key = _project(layer, x, "k")
    return apply_rotary_pos_emb(key, key, cos, sin)[1], _project(layer, x, "v")


def _attend(layer: Any, x: Tensor, cos: Tensor, sin: Tensor, entries: list[tuple[Tensor, Tensor]]) -> Tensor:
    attention = layer.self_attn
    query = _project(layer, x, "q")
    query = apply_rotary_pos_emb(query, query, cos, sin)[0]
    keys, values = (torch.cat([entry[n] for entry in entries], dim=2) for n in (0, 1))
    groups = query.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
    weights = (query @ keys.transpose(2, 3) * attention.scaling).softmax(-1)
    return attention.o_proj((weights @ values).transpose(1, 2).reshape(1, 1, -1))
