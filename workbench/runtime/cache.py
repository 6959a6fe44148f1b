"""The cache that a model reads a text into."""

from __future__ import annotations

import sys
from typing import Any


def new_cache(model: Any) -> Any:
    """An empty cache of the class that ``model`` takes: its family's own where it has one, as MiniMax does, else
    transformers' dynamic cache with the layers that the configuration asks for."""
    from transformers import DynamicCache

    home = type(model).__module__
    for found in vars(sys.modules[home]).values():
        if isinstance(found, type) and issubclass(found, DynamicCache) and found.__module__ == home:
            return found()
    return DynamicCache(config=model.config)


def keeps_all(cache: Any) -> bool:
    """Whether ``cache`` holds every key and value and nothing else, so that it can be cut at any token: a sliding window has
    forgotten some, and a recurrent state cannot go back."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    return type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)


def can_repeat(cache: Any) -> bool:
    """Whether one read text can be repeated for a batch and gone on with: keys and values can, a recurrent state and what
    some families keep beside keys and values cannot."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    return type(cache) is DynamicCache and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers
    )
