"""The workbench's place in a model: its experts, attention and gated MLPs, put in at open, taken out at close.

Experts and attention come in through transformers' registries, dense MLPs by another forward on the instance. Each part
runs on :mod:`routing_kernels` where that is proved to compute the same and is not slower, else on the model's own
functions, and :attr:`Attachment.paths` says which and why.

Who wants more of a part than its output asks for it: :func:`ask_attention` and :func:`ask_mlp` register a function that
sees every call and answers with options (blocks to keep, neurons to keep, statistics to report) or with ``None``.
"""

from workbench.runtime.attach.attachment import Attachment, Kernels, device_of
from workbench.runtime.attach.attention import (
    AttentionSink,
    ask_attention,
    askers_of,
    asks_attention,
)
from workbench.runtime.attach.calls import (
    AttentionCall,
    AttentionOptions,
    AttentionReport,
    MlpCall,
    MlpOptions,
    MlpReport,
)
from workbench.runtime.attach.experts import Bank, bank_of, each_choice, known_bank
from workbench.runtime.attach.mlp import ask_mlp
from workbench.runtime.attach.paths import KernelPath

__all__ = [
    "Attachment",
    "AttentionCall",
    "AttentionOptions",
    "AttentionReport",
    "AttentionSink",
    "Bank",
    "KernelPath",
    "Kernels",
    "MlpCall",
    "MlpOptions",
    "MlpReport",
    "ask_attention",
    "askers_of",
    "ask_mlp",
    "asks_attention",
    "bank_of",
    "device_of",
    "each_choice",
    "known_bank",
]
