"""A linear model of Gaussian data, exactly, from its matrices."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_list, check_number
from jensen.diagnostics.snapshot import Snapshot
from jensen.family.family import diagonal
from jensen.family.gaussian import LOG_2PI


class LinearModel(NamedTuple):
    """q(z|x) = N(A x + a, diag variance), p(x|z) = N(W z + m, noise I), p(z) = N(0, I); float64.

    encoder: A `(D, P)`; offset: a `(D,)`; variance: `(D,)`; decoder: W `(P, D)`; start: m `(P,)`;
        noise: `()`.
    """

    encoder: Tensor
    offset: Tensor
    variance: Tensor
    decoder: Tensor
    start: Tensor
    noise: Tensor

    def rate(self, sigma: Tensor) -> Tensor:
        """E KL(q(z|x) || p(z)) for x ~ N(0, sigma), sigma `(P, P)`; `()`, nats."""
        codes = (self.encoder @ sigma @ self.encoder.T).diagonal()
        return 0.5 * (codes + self.offset.square() + self.variance - 1 - self.variance.log()).sum()

    def squared_error(self, sigma: Tensor) -> Tensor:
        """E |x - W z - m|^2 for x ~ N(0, sigma), z ~ q(z|x); `()`."""
        left = torch.eye(len(sigma)).to(sigma) - self.decoder @ self.encoder
        bias = self.start + self.decoder @ self.offset
        return (
            (left @ sigma @ left.T).trace()
            + bias.square().sum()
            + (self.decoder.square() * self.variance).sum()
        )

    def elbo(self, sigma: Tensor) -> Tensor:
        """E of the bound for x ~ N(0, sigma); `()`, nats."""
        distortion = 0.5 * (
            self.squared_error(sigma) / self.noise + len(sigma) * (LOG_2PI + self.noise.log())
        )
        return -(distortion + self.rate(sigma))

    def evidence(self, sigma: Tensor) -> Tensor:
        """E log p(x) for x ~ N(0, sigma): p(x) = N(m, W W' + noise I); `()`, nats."""
        covariance = self.decoder @ self.decoder.T + self.noise * torch.eye(len(sigma)).to(sigma)
        moment = sigma + torch.outer(self.start, self.start)
        quadratic = torch.linalg.solve(covariance, moment).trace()
        return -0.5 * (
            len(sigma) * LOG_2PI + torch.linalg.slogdet(covariance).logabsdet + quadratic
        )


def check_variances(variances: Sequence[float], snapshot: Snapshot) -> None:
    """Refuse `variances` that are not one for each dimension of the snapshot's observations."""
    check_list("variances", variances)
    for variance in variances:
        check_number("variances", variance, low=1e-12)
    if snapshot.images.shape[1:] != (len(variances),):
        shape = list(snapshot.images.shape[1:])
        raise InputError(
            f"variances has {len(variances)} numbers but examples have shape {shape}: expected one"
            " for each dimension"
        )


def linear_model(snapshot: Snapshot) -> LinearModel:
    """The matrices of the snapshot's model, found by probing it; float32 models give them to
    float32.

    Raises:
        InputError: a model that is not linear, whose matrices would be none.
    """
    like = snapshot.encode(snapshot.images[:1]).mean
    size = math.prod(snapshot.images.shape[1:])
    x = torch.zeros(1, size).to(like)
    z = torch.zeros(1, like.shape[1]).to(like)
    offset, log_var = (
        part[0].double() for part in diagonal(snapshot.encode(x), "the oracle of linear models")
    )
    encoder = snapshot.encode(torch.eye(size).to(like)).mean.double() - offset
    start = snapshot.decode(z)[0].double()
    decoder = snapshot.decode(torch.eye(like.shape[1]).to(like)).double() - start
    double = snapshot.decode(2 * torch.eye(like.shape[1]).to(like)).double() - start
    if not torch.allclose(double, 2 * decoder, rtol=1e-3, atol=1e-3 * float(decoder.abs().max())):
        raise InputError("the decoder is not linear: expected model=linear, whose optimum is known")
    # The distortion is squared error / (2 noise) + constant: its slope between a near and a far
    # observation.
    points = torch.cat([x, x + 10])
    near, far = snapshot.infer(points, torch.cat([z, z])).bound.distortion.double()
    least, most = (points - snapshot.decode(snapshot.encode(points).mean)).double().square().sum(1)
    return LinearModel(
        encoder.T, offset, log_var.exp(), decoder.T, start, (most - least) / (2 * (far - near))
    )
