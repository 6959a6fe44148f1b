"""A large run without a model: seeded rows in a store, for whatever reads runs of any size.

As a script it writes one into a store file: ``python benchmarks/synthetic_run.py runs.duckdb --tokens 32000``.
"""

from __future__ import annotations

import argparse

from workbench.store import Store, new_run_id

# Choices drift slowly along the text, so that neighbouring tokens look alike at every zoom. hash() is seeded by its input.
_CELLS = """
CREATE OR REPLACE TEMP TABLE synthetic_cells AS
SELECT p.position, l.layer,
       CAST(floor(hash(l.layer, $seed) % $experts
                  + (1 + l.layer % 5) / 16 * $experts * sin(p.position / 900 + l.layer)
                  - ln((1 + hash(p.position, l.layer, $seed) % 1000000) / 1000001) * $experts / 24) AS BIGINT)
           + CAST($shifted AND l.layer BETWEEN $layers // 3 AND $layers // 2 - 1
                  AND p.position BETWEEN $tokens // 3 AND $tokens // 2 AND p.position % 3 = 0 AS BIGINT) AS home
FROM range($tokens) AS p(position), range($layers) AS l(layer)
"""
_ROUTING = """
INSERT INTO routing (run, step, position, layer, slot, expert, weight, rank)
SELECT $run, 0, c.position, c.layer, s.slot, ((c.home + 7 * s.slot) % $experts + $experts) % $experts,
       2 * ($top_k - s.slot) / ($top_k * ($top_k + 1)) * (0.9 + 0.1 * hash(c.position, c.layer) % 1000 / 1000), s.slot
FROM synthetic_cells AS c, range($top_k) AS s(slot)
ORDER BY c.position // 2048, c.layer, c.position, s.slot
"""
_ROUTER = """
INSERT INTO router (run, step, position, layer, margin, entropy, tie, dropped, edited)
SELECT $run, 0, c.position, c.layer, 0.2 * hash(c.position, c.layer, 1) % 1000 / 1000,
       1.5 + 0.5 * sin(c.position / 500) + 0.2 * hash(c.position, c.layer, 2) % 1000 / 1000, false, 0,
       $shifted AND c.layer BETWEEN $layers // 3 AND $layers // 2 - 1
FROM synthetic_cells AS c ORDER BY c.position // 2048, c.layer, c.position
"""
_PARTS = """
INSERT INTO contribution (run, step, position, layer, attn_norm, attn_cos, mlp_norm, mlp_cos, block_norm, influence)
SELECT $run, 0, c.position, c.layer, 0.1, 0.2, 0.3, 0.1, 0.4 + 0.01 * c.layer,
       0.3 * hash(c.position, c.layer, 3) % 1000 / 1000
FROM synthetic_cells AS c ORDER BY c.position // 2048, c.layer, c.position
"""
_TOKENS = """
INSERT INTO token (run, step, position, token, text, part, logprob)
SELECT $run, 0, p.position, p.position % 9,
       ['the', ' route', ' of', ' a', ' token', ' through', ' experts', chr(10), ' is'][p.position % 9 + 1], 'prompt',
       -3 - hash(p.position) % 1000 / 1000
FROM range($tokens) AS p(position)
"""
_RUN = """
INSERT INTO run (run, parent, kind, model, num_layers, num_experts, top_k, prompt, prompt_tokens, tokens, labels)
VALUES ($run, $parent, 'forward', 'synthetic', $layers, $experts, $top_k, 'A synthetic run', $tokens, $tokens,
        '{"synthetic": true}')
"""


def write_synthetic_run(
    store: Store,
    tokens: int,
    layers: int,
    experts: int,
    top_k: int,
    seed: int = 0,
    flips_of: int | None = None,
) -> int:
    """Write one run of seeded routing, contribution and tokens; its number.

    Parameters
    ----------
    store
        Open for recording.
    tokens, layers, experts, top_k
        Size of the run.
    seed
        Two runs with one seed are equal.
    flips_of
        Number of a run with the same seed: a third of the tokens in a block of layers and tokens in the middle is then
        re-routed against it.
    """
    run = new_run_id()
    values = {
        "run": run, "tokens": tokens, "layers": layers, "experts": experts, "top_k": top_k, "seed": seed,
        "shifted": flips_of is not None, "parent": flips_of,
    }  # fmt: skip
    cursor = store.cursor()
    for statement in (_CELLS, _ROUTING, _ROUTER, _PARTS, _TOKENS, _RUN):
        cursor.execute(statement, {name: values[name] for name in values if f"${name}" in statement})
    cursor.execute("DROP TABLE synthetic_cells")
    store.summarise([run])  # as a bench does with the runs that it has recorded
    return run


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--tokens", type=int, default=32_000)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--experts", type=int, default=128)
    parser.add_argument("--top-k", type=int, default=8)
    options = parser.parse_args()
    with Store.open(options.store) as opened:
        print(write_synthetic_run(opened, options.tokens, options.layers, options.experts, options.top_k))
