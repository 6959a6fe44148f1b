"""Log-probabilities of tokens, in plain torch."""

from __future__ import annotations

from torch import Tensor


def token_logprob(logits: Tensor, tokens: Tensor) -> Tensor:
    """Output [T] of the op ``routing_kernels::token_logprob``, computed in float64; the arguments are taken as checked."""
    wide = logits.double()
    return (wide.gather(1, tokens.unsqueeze(1)).squeeze(1) - wide.logsumexp(1)).to(logits.dtype)


def token_logprob_backward(grad: Tensor, logits: Tensor, tokens: Tensor) -> Tensor:
    """Gradient [T, V] of the logits: that of the row is its token's one-hot vector less the softmax."""
    given = grad.unsqueeze(1)
    return (-given * logits.softmax(1)).scatter_add(1, tokens.unsqueeze(1), given)
