"""The weights that a trained model gives to its senses, beside those of the ideal observer."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from jensen.base.errors import InputError, check_list
from jensen.base.random import fold, normal
from jensen.diagnostics.picture import chart
from jensen.diagnostics.snapshot import Snapshot

DRAWS = 1024


def ideal(noise: Tensor, prior_sd: float) -> tuple[Tensor, Tensor]:
    """The weight of each sense in the best estimate of each source, `(M, D)`, and its variance
    `(D,)`: precisions over their sum with the prior's (Ernst & Banks 2002).
    """
    precision = 1 / noise.square()
    total = precision.sum(0) + prior_sd**-2
    return precision / total, 1 / total


@torch.no_grad()
def ventriloquism(
    snapshot: Snapshot,
    noise: Mapping[str, float | Sequence[float]],
    prior_sd: float = 1.0,
    sources: Sequence[str] = (),
) -> Mapping[str, Tensor]:
    """`weight_<sense>_<source>`: what a step of one sense moves the model's estimate of a source by,
    the slope of the decoded code on the observations; `variance_<source>`, of the decoded draws of
    q(z|x); and by how much they are off the ideal observer's: `weight_error`, the largest
    difference, and `variance_error`, the largest relative one.

    A source is estimated by the mean over the senses of what is decoded, each counted by its
    precision, since a blurred sense tells a decoder little. So it does not matter how the latents
    are turned or scaled.

    Args:
        noise: standard deviations of `data=cues`.
        sources: what to call the sources in pictures.
    """
    model = snapshot.senses
    names = [*noise]
    rows = [[*each] if isinstance(each, Sequence) else [each] for each in noise.values()]
    deviations = torch.tensor(rows, dtype=torch.float64)
    senses, count = deviations.shape
    words = called(sources, count)
    if model is None or model.modalities.sizes != [count] * senses:
        raise InputError(
            "diagnostics holds ventriloquism and the data are no cues of these senses: expected"
            " data=cues model=multimodal; leave it out"
        )
    x = snapshot.images
    complete = x[~x.isnan().any(1)]
    q = model.encode(complete)

    precision = deviations.square().reciprocal()
    share = (precision / precision.sum(0)).to(x.device)

    def estimate(z: Tensor) -> Tensor:
        return (share * model.decode(z).double().unflatten(-1, (senses, count))).sum(-2)

    design = torch.cat([complete.double(), torch.ones_like(complete[:, :1]).double()], 1)
    slope = torch.linalg.lstsq(design, estimate(q.mean)).solution[:-1]
    slope = slope.unflatten(0, (senses, count)).cpu()
    weights = slope.diagonal(dim1=1, dim2=2)  # (M, D)
    index = torch.arange(len(complete), device=x.device)
    draw = normal(fold(0, "ventriloquism"), index, (DRAWS, model.latent_dim)).to(q.mean)
    drawn = [estimate(q.rsample(each)) for each in draw.unbind(1)]
    variance = torch.stack(drawn).var(0).mean(0).cpu()
    best, best_variance = ideal(deviations, prior_sd)
    found = {
        f"weight_{name}_{source}": weights[sense, source]
        for sense, name in enumerate(names)
        for source in range(count)
    }
    found |= {f"variance_{source}": variance[source] for source in range(count)}
    found["weight_error"] = (weights - best).abs().max()
    found["variance_error"] = (variance / best_variance - 1).abs().max()
    found["weights"] = _picture(names, words, deviations, weights, prior_sd)
    return found


def called(sources: Sequence[str], count: int) -> list[str]:
    """Names of so many sources; numbers for those that have none."""
    check_list("sources", sources)
    names = [*map(str, sources), *(f"source {place}" for place in range(len(sources), count))]
    return names[:count]


def _picture(
    names: Sequence[str], words: Sequence[str], noise: Tensor, weights: Tensor, prior_sd: float
) -> Tensor:
    """Each sense's weight against the noise of the first, theory as lines and the model's as
    points, one colour for each source.
    """
    sweep = torch.logspace(-1, 1, 100, dtype=torch.float64)

    def draw(axes: Axes) -> None:
        for source in range(noise.shape[1]):
            each = noise[:, source].expand(len(sweep), -1).clone()
            each[:, 0] = sweep
            lines, _ = ideal(each.mT, prior_sd)
            for sense, (name, style) in enumerate(zip(names, ("-", "--", ":", "-."), strict=False)):
                label = f"{name}, {words[source]}"
                axes.plot(sweep, lines[sense], style, color=f"C{source}", label=label)
                place = float(noise[0, source])
                axes.plot(place, float(weights[sense, source]), "o", color=f"C{source}")
        axes.set_xscale("log")
        axes.set_ylim(-0.05, 1.05)
        axes.set_xlabel(f"standard deviation of {names[0]}")
        axes.set_ylabel("weight (lines: ideal, points: the model)")
        axes.legend(fontsize=8)

    return chart(draw, 7, 4.5)
