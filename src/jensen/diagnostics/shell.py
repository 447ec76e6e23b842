"""The norm of codes against that of draws from the prior, which for N(0, I) lie in a thin shell."""

import math
from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from torch import Tensor

from jensen.base.errors import check_count
from jensen.diagnostics.picture import chart
from jensen.diagnostics.snapshot import Snapshot
from jensen.family.family import is_standard
from jensen.family.unknown import Unknown

_DRAWS = 10_000
"""Draws of a prior whose norms have no known law."""


def shell(snapshot: Snapshot, bins: int = 30) -> Mapping[str, Tensor]:
    """The lengths of samples of q(z|x), in `bins`, beside those of draws of the prior: of N(0, I)
    by the chi law with D degrees of freedom. `norm` and `prior` are the means, `distance` is that
    of Kolmogorov and Smirnov.

    In many dimensions N(0, I) is a shell of radius sqrt(D) and width 1 / sqrt(2): the straight line
    between two codes leaves it, and `interpolation` with `path: spherical` does not. Empty where
    the prior is unknown.
    """
    check_count("bins", bins, least=2)
    if isinstance(snapshot.prior, Unknown):
        return {}
    norm = snapshot.z.double().norm(dim=1).sort().values.cpu()
    dim = snapshot.z.shape[1]
    standard = is_standard(snapshot.prior)
    if standard:
        half = torch.tensor(dim / 2, dtype=torch.float64)
        law = torch.special.gammainc(half, norm.square() / 2)
        drawn = norm[:0]
        mean = math.sqrt(2) * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))
    else:
        drawn = snapshot.draw(_DRAWS).double().norm(dim=1).sort().values.cpu()
        law = torch.searchsorted(drawn, norm, right=True).double() / len(drawn)
        mean = float(drawn.mean())
    step = torch.arange(len(norm), dtype=torch.float64)
    distance = torch.maximum(law - step / len(norm), (step + 1) / len(norm) - law).max()

    def draw(axes: Axes) -> None:
        top = max(float(norm[-1]), mean + 3 if standard else float(drawn[-1]))
        axes.hist(norm.tolist(), bins=bins, density=True, color="C0", alpha=0.6, label="codes")
        if standard:
            r = torch.linspace(0, top, 400, dtype=torch.float64)[1:]
            axes.plot(r.tolist(), _chi(r, dim).tolist(), color="C1", label=f"N(0, I), D = {dim}")
        else:
            axes.hist(
                drawn.tolist(),
                bins=bins,
                density=True,
                histtype="step",
                color="C1",
                label="prior",
            )
        axes.set(xlabel="norm of z", ylabel="density", xlim=(0, top))
        axes.set_title(f"the shell that codes lie in: KS distance {float(distance):.3f}")
        axes.legend()

    found = {"norm": norm.mean(), "prior": norm.new_tensor(mean), "distance": distance}
    return {"lengths": chart(draw), **found}


def _chi(r: Tensor, dim: int) -> Tensor:
    """The density of the norm of N(0, I) in `dim` dimensions."""
    half = dim / 2
    constant = (half - 1) * math.log(2) + math.lgamma(half)
    return ((dim - 1) * r.log() - r.square() / 2 - constant).exp()
