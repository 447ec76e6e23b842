"""Coordinates of a mixture, batched GMRES and the implicit function theorem, against dense
algebra.
"""

import math

import pytest
import torch
from mixtures import close, every_structure, mixed, normal

from jensen.em import implicit as fixed_point
from jensen.em.coordinates import coordinates, mixture_at
from jensen.family.mixture import Mixture
from jensen.family.moments import PseudoCounts


def stack(structure, seeds=(0, 1), components=3, dim=2):
    each = [mixed(structure, components, dim, seed) for seed in seeds]
    parts = zip(*((p.log_weight, *p.components) for p in each), strict=True)
    log_weight, mean, shape = (torch.stack(part) for part in parts)
    return Mixture(log_weight.log_softmax(-1), structure(mean, shape))


@every_structure
def test_coordinates_name_a_mixture_and_are_zero_at_the_reference(structure):
    about = stack(structure)
    p = stack(structure, (2, 3))
    theta = coordinates(p, about)
    found = mixture_at(theta, about)
    for a, b in zip(
        (found.log_weight, *found.components), (p.log_weight, *p.components), strict=True
    ):
        close(a, b)
    close(coordinates(about, about), torch.zeros_like(theta))
    close(coordinates(mixture_at(theta, about), about), theta)


@every_structure
def test_coordinates_do_not_depend_on_the_units_of_the_points(structure):
    x = normal(2, 40, 2, seed=7)

    def residual(scale, offset):
        p = stack(structure)
        shape = p.components[1]
        shape = shape * scale if "scale_tril" in structure._fields else shape + 2 * math.log(scale)
        p = Mixture(p.log_weight, structure(p.components.mean * scale + offset, shape))
        return coordinates(fixed_point.step(x * scale + offset, p), p)

    close(residual(1000.0, 5.0), residual(1.0, 0.0), 1e-9)


def systems(size=12, count=4, seed=0):
    """I - J with the eigenvalues of J in [0, 0.95], and not symmetric."""
    basis = normal(count, size, size, seed=seed) + 3 * torch.eye(size, dtype=torch.float64)
    values = torch.linspace(0, 0.95, size, dtype=torch.float64)
    return torch.eye(size, dtype=torch.float64) - basis @ torch.diag(values) @ torch.linalg.inv(
        basis
    )


def test_gmres_solves_each_system_as_if_it_were_alone():
    a = systems()
    b = normal(4, 12, seed=5)
    b[2] = 0
    a[3] = torch.eye(12)  # ends after one product
    u, error = fixed_point.gmres(lambda v: (a @ v.unsqueeze(-1)).squeeze(-1), b, 1e-12, 24)
    assert (error <= 1e-12).all()
    close(u, torch.linalg.solve(a, b), 1e-9)
    for i in range(4):
        alone, _ = fixed_point.gmres(lambda v, i=i: v @ a[i].T, b[i : i + 1], 1e-12, 24)
        close(u[i], alone[0], 1e-9)


def test_gmres_stops_at_its_limit_and_says_how_far_it_came():
    a = systems(40, 1)
    b = normal(1, 40, seed=5)
    calls = []

    def product(v):
        calls.append(1)
        return v @ a[0].T

    u, error = fixed_point.gmres(product, b, 1e-12, 6)
    assert len(calls) == 6
    close(error, (u @ a[0].T - b).norm(dim=-1) / b.norm(dim=-1))
    assert error.item() > 1e-6


def test_gmres_of_a_singular_system_is_finite():
    a = torch.diag(torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64))
    u, error = fixed_point.gmres(lambda v: v @ a, torch.ones(1, 3, dtype=torch.float64), 1e-10, 24)
    assert u.isfinite().all()
    assert error.item() == pytest.approx(3**-0.5)


def test_the_implicit_gradient_of_a_known_fixed_point():
    """theta = cos(theta) c + x: dtheta/dx = 1 / (1 + c sin theta)."""
    x = torch.tensor([[0.1], [0.4]], dtype=torch.float64, requires_grad=True)
    c = torch.tensor([[0.9], [0.2]], dtype=torch.float64, requires_grad=True)
    at = torch.zeros(2, 1, dtype=torch.float64)
    for _ in range(400):
        at = (at.cos() * c + x).detach()
    theta = at.cos() * c + x - at
    errors = []
    out = fixed_point.implicit(
        theta,
        lambda t, x, c: (at + t).cos() * c + x - at,
        (x.detach(), c.detach()),
        rtol=1e-12,
        report=errors.append,
    )
    by_x, by_c = torch.autograd.grad(out.sum(), (x, c), retain_graph=True)
    close(by_x, 1 / (1 + c * at.sin()))
    close(by_c, at.cos() / (1 + c * at.sin()))
    assert (errors[0] <= 1e-12).all()
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.grad(out.square().sum(), x, create_graph=True)[0].sum().backward()


@every_structure
def test_a_component_without_points_stays_where_it_is_kept(structure):
    x = normal(2, 40, 2, seed=7)
    p = stack(structure)
    far = p.components.mean.clone()
    far[:, 0] = 1e4
    p = p._replace(components=structure(far, p.components[1]))
    kept = p._replace(components=structure(far + 1, p.components[1]))
    prior = PseudoCounts(covariance=1.0)
    close(
        fixed_point.step(x, p, prior=prior, kept=kept).components.mean[:, 0],
        kept.components.mean[:, 0],
    )
    close(fixed_point.step(x, p, prior=prior).components.mean[:, 0], far[:, 0])
    ones = torch.ones(2, 40, dtype=torch.float64)
    close(
        fixed_point.step(x, p, weights=ones).components.mean, fixed_point.step(x, p).components.mean
    )
