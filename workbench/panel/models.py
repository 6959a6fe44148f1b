"""Which models can be opened without a network: the one that ships with the project, and those in the hub's cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workbench.panel import answers
from workbench.panel.replies import sentence
from workbench.said import said

DEMO = "demo"


def on_this_machine() -> list[answers.Model]:
    """Decoders whose weights are here, the demo model first."""
    found = [answers.Model(name=DEMO, note=sentence(said("ships with the workbench")))]
    for name, config in sorted(_cached().items()):
        kinds = config.get("architectures") or []
        if any(str(kind).endswith("ForCausalLM") for kind in kinds):
            found.append(answers.Model(name=name, note=sentence(str(config.get("model_type", "")))))
    return found


def _cached() -> dict[str, dict[str, Any]]:
    """Configurations of the snapshots in the Hugging Face cache that have weights, by the hub's name."""
    from huggingface_hub.constants import HF_HUB_CACHE

    models: dict[str, dict[str, Any]] = {}
    for folder in Path(HF_HUB_CACHE).glob("models--*"):
        for config in folder.glob("snapshots/*/config.json"):
            if not any(config.parent.glob("*.safetensors")) and not any(config.parent.glob("*.bin")):
                continue
            try:
                data = json.loads(config.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue  # half a download is no model
            if isinstance(data, dict):
                models["/".join(folder.name.split("--")[1:])] = data
    return models
