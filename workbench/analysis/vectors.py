"""Routing as an embedding: what runs or tokens chose, as vectors, and what can be read from them.

Every function takes and gives frames; scikit-learn is imported when one of them is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.address import integers
from workbench.analysis.source import Source
from workbench.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd


def routing_vectors(
    source: Source,
    runs: int | Sequence[int],
    layers: Sequence[int] | None = None,
    by: Literal["run", "token"] = "run",
    *,
    value: Literal["weight", "chosen"] = "weight",
    first: bool = False,
) -> pd.DataFrame:
    """The combine weights of runs or tokens as one vector each.

    Parameters
    ----------
    source
        A bench, a store, what :func:`workbench.connect` gives, or a DuckDB connection.
    runs
        One id or several.
    layers
        Routed layers to take, all without.
    by
        ``"run"``: the mean over a run's tokens, ``"token"``: one row a token.
    value
        ``"weight"`` the executed weight, ``"chosen"`` 1 for every slot an expert was given.
    first
        Whether position 0 counts; it routes like no other token.

    Returns
    -------
    pandas.DataFrame
        Index ``run`` or ``(run, position)``; columns ``(layer, expert)``, ascending, of the experts that were chosen at all;
        float64, 0 where an expert was not chosen.

    Raises
    ------
    StoreError
        Nothing is recorded for these runs and layers.

    Notes
    -----
    Source: routing weights as an embedding of the input (Li and Zhou 2024, "Your Mixture-of-Experts LLM Is Secretly an
    Embedding Model For Free"), here from the weights that were executed.
    """
    ids = list(integers(runs, "run"))
    amount = {"weight": "CAST(weight AS DOUBLE)", "chosen": "1.0"}[value]
    frame = source.sql(
        f"SELECT run, position, layer, expert, sum({amount}) AS amount FROM routing "
        "WHERE run IN (SELECT unnest(?::BIGINT[])) AND (?::BOOLEAN OR position > 0) "
        "AND (?::INTEGER[] IS NULL OR list_contains(?::INTEGER[], layer)) GROUP BY ALL",
        params=[ids, first, layers, layers],
    ).df()
    if frame.empty:
        raise StoreError(
            "No routing is recorded for these runs and layers.", "Check the ids and layer numbers."
        )
    tokens = frame.pivot_table(
        index=["run", "position"], columns=["layer", "expert"], values="amount", aggfunc="sum", fill_value=0.0
    ).sort_index(axis=1)
    return tokens if by == "token" else tokens.groupby(level="run").mean()


def neighbours(vectors: pd.DataFrame, k: int = 3, *, references: pd.DataFrame | None = None) -> pd.DataFrame:
    """The ``k`` rows of ``references`` (of ``vectors`` without) that point most in the direction of each row.

    Returns
    -------
    pandas.DataFrame
        ``item``, ``place`` (from 1), ``other`` and ``similarity`` (cosine); a row is no neighbour of itself.
    """
    import pandas as pd
    from sklearn.neighbors import NearestNeighbors

    pool = vectors if references is None else references.reindex(columns=vectors.columns, fill_value=0.0)
    _require(
        1 <= k < len(pool),
        f"There are {len(pool)} rows to find {k} neighbours among.",
        f"Choose k from 1 to {len(pool) - 1}.",
    )
    search = NearestNeighbors(n_neighbors=min(k + 1, len(pool)), metric="cosine").fit(pool.to_numpy())
    distances, places = search.kneighbors(vectors.to_numpy())
    rows = []
    for item, distance, found in zip(vectors.index, distances, places, strict=True):
        others = [
            (pool.index[j], 1.0 - d) for j, d in zip(found, distance, strict=True) if pool.index[j] != item
        ][:k]
        rows += [
            (item, place, other, similarity) for place, (other, similarity) in enumerate(others, start=1)
        ]
    return pd.DataFrame(rows, columns=["item", "place", "other", "similarity"])


def clusters(vectors: pd.DataFrame, k: int, *, seed: int = 0) -> pd.DataFrame:
    """k-means of the rows.

    Returns
    -------
    pandas.DataFrame
        The index of ``vectors``, ``cluster`` (from 0), ``distance`` to its centre and ``silhouette`` (-1..1, near 0 where
        there are no clusters to find).
    """
    import pandas as pd
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_samples

    _require(2 <= k < len(vectors), f"{len(vectors)} rows do not make {k} clusters.", "Choose 2 <= k < rows.")
    data = vectors.to_numpy()
    model = KMeans(n_clusters=k, n_init=10, random_state=seed).fit(data)
    distance = np.linalg.norm(data - model.cluster_centers_[model.labels_], axis=1)
    columns = {
        "cluster": model.labels_,
        "distance": distance,
        "silhouette": silhouette_samples(data, model.labels_),
    }
    return pd.DataFrame(columns, index=vectors.index)


def components(vectors: pd.DataFrame, count: int = 2) -> pd.DataFrame:
    """Principal components of the rows.

    Returns
    -------
    pandas.DataFrame
        The index of ``vectors`` and ``pc1``, ``pc2``, ...; ``.attrs["explained"]`` is the share of the variance of each.
    """
    import pandas as pd
    from sklearn.decomposition import PCA

    _require(
        1 <= count <= min(vectors.shape),
        f"A table of {vectors.shape} has no {count} components.",
        "Ask for fewer.",
    )
    model = PCA(n_components=count, svd_solver="full")
    placed = model.fit_transform(vectors.to_numpy())
    frame = pd.DataFrame(placed, index=vectors.index, columns=[f"pc{i + 1}" for i in range(count)])
    frame.attrs["explained"] = model.explained_variance_ratio_.tolist()
    return frame


def probe(
    vectors: pd.DataFrame,
    labels: Mapping[int, Any],
    *,
    folds: int = 5,
    permutations: int = 99,
    by_layer: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Can a linear reader tell the label of a run from its routing?

    A logistic regression on standardised columns is scored on runs it has not seen; rows of one run (tokens) always stay on
    the same side. The null deals the labels anew among the runs.

    Parameters
    ----------
    vectors
        As :func:`routing_vectors` gives them, by run or by token.
    labels
        Label by run id; runs without one are left out.
    folds
        Parts the runs are divided into, each held out once.
    permutations
        Deals of the null.
    by_layer
        One row a layer instead of one for all layers together.

    Returns
    -------
    pandas.DataFrame
        ``layer`` (NULL for all), ``rows``, ``runs``, ``score`` and ``null_mean``, ``null_sd`` (balanced accuracy, held out;
        chance is 1 / labels), ``p_value`` = (1 + deals that score as high) / (1 + deals).

    Raises
    ------
    StoreError
        There are fewer than two labels, or a label has fewer runs than there are folds.
    """
    import pandas as pd

    of_row = vectors.index.get_level_values("run")
    kept = vectors[np.asarray([run in labels for run in of_row], dtype=bool)]
    rows_of = kept.index.get_level_values("run").to_numpy()
    runs = np.unique(rows_of)
    values = np.asarray([str(labels[run]) for run in runs])
    names, counts = np.unique(values, return_counts=True)
    _require(len(names) >= 2, f"There are {len(names)} labels to tell apart.", "Give at least two labels.")
    _require(
        counts.min() >= folds,
        f"The label {str(names[counts.argmin()])!r} has {counts.min()} runs for {folds} folds.",
        "Record more runs, or lower folds.",
    )
    layers: list[Any] = [None]
    if by_layer:
        layers = sorted(set(kept.columns.get_level_values("layer")))
    place = np.searchsorted(runs, rows_of)
    result = []
    for layer in layers:
        data = kept.to_numpy() if layer is None else kept[layer].to_numpy()
        score = _held_out(data, values, place, folds, seed)
        rng = np.random.default_rng(seed)
        null = [_held_out(data, rng.permutation(values), place, folds, seed) for _ in range(permutations)]
        result.append(
            {
                "layer": layer,
                "rows": len(data),
                "runs": len(runs),
                "score": score,
                "null_mean": float(np.mean(null)) if null else None,
                "null_sd": float(np.std(null)) if null else None,
                "p_value": (1 + sum(value >= score for value in null)) / (1 + len(null)) if null else None,
            }
        )
    return pd.DataFrame(result)


def _held_out(data: np.ndarray, of_run: np.ndarray, place: np.ndarray, folds: int, seed: int) -> float:
    """Balanced accuracy over held-out rows; ``of_run`` labels the runs, ``place`` says which run a row belongs to."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    target = of_run[place]
    predicted = np.empty_like(target)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros((len(of_run), 1)), of_run)
    for _, held_runs in splits:
        held = np.isin(place, held_runs)
        reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        predicted[held] = reader.fit(data[~held], target[~held]).predict(data[held])
    return float(balanced_accuracy_score(target, predicted))


def _require(holds: bool, problem: str, remedy: str) -> None:
    if not holds:
        raise StoreError(problem, remedy)
