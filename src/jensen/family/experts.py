"""The product of several Gaussian experts: what each of them says of one unknown, combined."""

import torch
from torch import Tensor

from jensen.family.gaussian import LOG_2PI, STANDARD, Gaussian


def product(experts: Gaussian, mask: Tensor | None = None) -> tuple[Gaussian, Tensor]:
    """The normalised product of M diagonal Gaussians, `(..., M, D)` to `(..., D)`, and the
    logarithm of its normaliser `(...)`, nats:

        prod_m N(z; mean_m, var_m)  =  C N(z; mean, var),   1 / var = sum_m 1 / var_m,
        mean = sum_m (var / var_m) mean_m

    Hinton 2002 ("Training products of experts"), for Gaussians. The precisions are added by
    log-sum-exp of -log_var, so no variance is too small or too large, and a single expert is given
    back bit for bit.

    Args:
        mask: `(..., M, 1)` or `(..., M, D)` bool, which experts speak; one at least for each
            coordinate.

    >>> pair = Gaussian(torch.tensor([[2.0], [0.0]]), torch.zeros(2, 1))
    >>> q, log_normaliser = product(pair)
    >>> q.mean, q.log_var.exp(), log_normaliser  # N(2; 0, variance 2)
    (tensor([1.]), tensor([0.5000]), tensor(-2.2655))
    """
    whole = pooled(experts, mask)
    log_var = experts.log_var.expand_as(experts.mean)
    distance = (-log_var).exp() * (experts.mean - whole.mean.unsqueeze(-2)).square()
    each = LOG_2PI + log_var + distance
    if mask is not None:
        each = each.masked_fill(~mask, 0.0)
    constant = each.sum(-2) - (LOG_2PI + whole.log_var)
    return whole, -0.5 * constant.sum(-1)


def pooled(experts: Gaussian, mask: Tensor | None = None) -> Gaussian:
    """The normalised product alone, `(..., M, D)` to `(..., D)`."""
    mean = experts.mean
    log_precision = -experts.log_var.expand_as(mean)
    if mask is not None:
        log_precision = log_precision.masked_fill(~mask, -torch.inf)
    # softmax and logsumexp in one: of few experts most of either is the start of its kernels
    most = log_precision.detach().amax(-2, keepdim=True)
    relative = (log_precision - most).exp()
    total = relative.sum(-2)
    return Gaussian((relative * mean).sum(-2) / total, -(most.squeeze(-2) + total.log()))


def beside(prior: Gaussian, experts: Gaussian, mask: Tensor) -> Gaussian:
    """The normalised product of a prior, `()` to `(..., D)`, and M experts `(..., M, D)`, to
    `(..., D)`; where none speaks, the prior bit for bit.

    The log-sum-exp of `pooled` about the prior's precision, in place of the greatest: the same
    where no two differ by more than e^80, as `bounded` ones do not, in half as many kernels.

    Args:
        mask: `(..., M, 1)` or `(..., M, D)` bool, which experts speak beside the prior.

    >>> pair = Gaussian(torch.tensor([[2.0], [0.0]]), torch.zeros(2, 1))
    >>> beside(STANDARD, pair, torch.tensor([[True], [True]])).mean
    tensor([0.6667])
    """
    log_precision = -experts.log_var
    if prior is not STANDARD:
        own = prior.log_var.to(log_precision)
        log_precision = log_precision + (own.unsqueeze(-2) if own.dim() > 1 else own)
    relative = log_precision.exp().masked_fill(~mask, 0.0)
    total = 1 + relative.sum(-2)
    pull = (relative * experts.mean).sum(-2)
    if prior is STANDARD:
        return Gaussian(pull / total, -total.log())
    prior = Gaussian(*(part.to(pull) for part in prior))
    return Gaussian((prior.mean + pull) / total, prior.log_var - total.log())
