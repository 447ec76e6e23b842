"""EM as a layer: gradients against finite differences and against each other, sets against single
fits, bad input.
"""

import math
import warnings

import pytest
import torch
from cases import slow
from torch import nn

import jensen
from jensen import EMLayer
from jensen.base.errors import InputError
from jensen.em import implicit as fixed_point
from jensen.em import steps as em
from jensen.em.coordinates import coordinates
from jensen.family import mixture
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture
from jensen.family.moments import PseudoCounts
from jensen.family.structures import STRUCTURES
from jensen.model.em_layer import PRIOR, ImplicitGradientWarning

FLAT = PseudoCounts()
every_covariance = pytest.mark.parametrize("covariance", list(STRUCTURES))
two_covariances = pytest.mark.parametrize(
    "covariance", [name if name in ("full", "diag") else slow(name) for name in STRUCTURES]
)
every_gradient = pytest.mark.parametrize("gradient", ["unroll", "implicit", "one_step", "none"])


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def points(sets=1, n=60, dim=2, k=3, separation=3.2, seed=0):
    """Clusters whose centres are `separation` from 0, and a start near them, `(B, N, D)` and a `(K,
    D)` mean.
    """
    centre = nn.functional.normalize(normal(k, dim, seed=seed), dim=1) * separation
    x = centre[torch.arange(n) % k] + normal(sets, n, dim, seed=seed + 1)
    return x, centre + 0.1 * normal(k, dim, seed=seed + 2)


def start_at(mean, covariance="full"):
    ones = torch.ones(mean.shape[-1], dtype=torch.float64)
    return Mixture(
        mean.new_full(mean.shape[:-1], -math.log(mean.shape[-2])),
        STRUCTURES[covariance].at(mean, ones),
    )


def parts(result):
    return result.mixture.log_weight, *result.mixture.components


def score(result, seed=40):
    """A number that depends on everything the mixture is."""
    values = (*parts(result), result.log_likelihood)
    return sum(
        (value * normal(*value.shape, seed=seed + i)).sum() for i, value in enumerate(values)
    )


def close(found, expected, tolerance=1e-12):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def same(found, expected, tolerance=1e-12):
    for a, b in zip(parts(found), parts(expected), strict=True):
        close(a, b, tolerance)
    close(found.log_likelihood, expected.log_likelihood, tolerance)


def gradient(layer, x, **options):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(score(layer(x, **options)), x)[0]


# ---- values --------------------------------------------------------------------------------------


@every_covariance
@every_gradient
def test_the_result_is_em_from_the_start(covariance, gradient):
    x, mean = points(2)
    layer = EMLayer(
        3, 2, covariance, steps=4, gradient=gradient, tolerance=0, starts="given", prior=PRIOR
    )
    start = start_at(mean, covariance)
    found = layer(x, start=start)
    for i in range(2):
        alone = em.fit(x[i], start, 4, prior=PRIOR)
        for a, b in zip(parts(found), (alone.log_weight, *alone.components), strict=True):
            close(a[i], b)
        close(found.responsibilities[i], em.e_step(x[i], alone))
        close(found.log_likelihood[i], mixture.log_prob(x[i], alone).mean())
        next_ = em.fit(x[i], alone, 1, prior=PRIOR)
        close(found.residual[i], coordinates(next_, alone).norm())
    assert found.residual.min() > 1e-8


@every_covariance
def test_with_a_tolerance_each_set_runs_until_it_has_converged(covariance):
    x, mean = points(3)
    layer = EMLayer(3, 2, covariance, tolerance=1e-9, starts="given")
    assert layer.gradient == "implicit"
    found = layer(x, start=start_at(mean, covariance))
    assert (found.residual <= 1e-9).all()
    for i in range(3):
        same(layer(x[i : i + 1], start=start_at(mean, covariance)), layer_slice(found, i))


def layer_slice(found, i):
    part = Mixture(
        found.mixture.log_weight[i : i + 1],
        type(found.mixture.components)(*(v[i : i + 1] for v in found.mixture.components)),
    )
    return found._replace(mixture=part, log_likelihood=found.log_likelihood[i : i + 1])


def test_the_defaults():
    assert EMLayer(2, 2).gradient == "unroll"
    assert EMLayer(2, 2).steps == 5
    assert EMLayer(2, 2).tolerance is None
    assert EMLayer(2, 2, steps=6).gradient == "implicit"
    assert EMLayer(2, 2, gradient="implicit").steps == 1000
    assert EMLayer(2, 2, gradient="none").steps == 5
    assert jensen.EMLayer is EMLayer
    assert "gradient='unroll'" in repr(EMLayer(2, 2))


@every_covariance
@every_gradient
def test_batched_and_masked_sets_are_each_set_by_itself(covariance, gradient):
    x, mean = points(3, 30)
    mask = torch.ones(3, 30, dtype=torch.bool)
    mask[1, 20:] = mask[2, 5:10] = False
    weights = normal(3, 30, seed=9).exp()
    layer = EMLayer(3, 2, covariance, starts="given", gradient=gradient)
    holes = x.where(mask.unsqueeze(-1), torch.nan).requires_grad_()
    start = start_at(mean, covariance)
    found = layer(holes, mask=mask, weights=weights.where(mask, torch.nan), start=start)
    (score(found) + (found.responsibilities**2).sum()).backward()
    assert (holes.grad[~mask] == 0).all()
    assert (found.responsibilities[~mask] == 0).all()
    for i in range(3):
        only = x[i][mask[i]].unsqueeze(0).requires_grad_()
        alone = layer(only, weights=weights[i][mask[i]].unsqueeze(0), start=start)
        same(alone, layer_slice(found, i))
        close(alone.residual, found.residual[i : i + 1])
        close(alone.responsibilities[0], found.responsibilities[i][mask[i]])
        values = (*parts(alone), alone.log_likelihood)
        total = sum(
            (value[0] * normal(3, *value.shape[1:], seed=40 + j)[i]).sum()
            for j, value in enumerate(values)
        )
        (total + (alone.responsibilities**2).sum()).backward()
        close(only.grad[0], holes.grad[i][mask[i]], 1e-7 if gradient == "implicit" else 1e-11)


@every_covariance
@every_gradient
def test_integer_weights_are_copies(covariance, gradient):
    x, mean = points(1, 30)
    times = torch.arange(30) % 4
    layer = EMLayer(3, 2, covariance, starts="given", gradient=gradient)
    start = start_at(mean, covariance)
    x.requires_grad_()
    weighted = layer(x, weights=times[None], start=start)
    copied = layer(x.repeat_interleave(times, 1), start=start)
    same(weighted, copied)
    close(
        *(torch.autograd.grad(score(found), x)[0] for found in (weighted, copied)),
        1e-7 if gradient == "implicit" else 1e-11,
    )


@every_gradient
def test_the_order_of_points_does_not_matter(gradient):
    x, _ = points(2, 30)
    layer = EMLayer(3, 2, gradient=gradient).double()
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    same(layer(x[:, order]), layer(x), 1e-10)


# ---- gradients -----------------------------------------------------------------------------------


@two_covariances
def test_unrolled_gradients_are_exact(covariance):
    x, mean = points(2, 8)
    weights = normal(2, 8, seed=8).exp()
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[0, 5:] = False
    layer = EMLayer(3, 2, covariance, steps=3, starts="given")
    first = start_at(mean, covariance)

    def value(x, weights, log_weight, mean, shape):
        shape = shape.tril() if "scale_tril" in STRUCTURES[covariance]._fields else shape
        result = layer(
            x,
            weights=weights,
            mask=mask,
            start=Mixture(log_weight, STRUCTURES[covariance](mean, shape)),
        )
        return *parts(result), result.responsibilities, result.log_likelihood

    leaves = [
        leaf.clone().requires_grad_() for leaf in (x, weights, first.log_weight, *first.components)
    ]
    assert torch.autograd.gradcheck(value, leaves)


@two_covariances
def test_unrolled_gradients_reach_the_learned_starts(covariance):
    layer = EMLayer(3, 2, covariance, steps=2).double()
    x, _ = points(2, 8)
    names, values = zip(*layer.named_parameters(), strict=True)
    assert set(names) == {"start_log_weight", "start_mean", "start_shape"}

    def value(*values):
        result = torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))
        return *parts(result), result.responsibilities, result.log_likelihood

    assert torch.autograd.gradcheck(value, values)
    score(layer(x)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


@pytest.mark.parametrize("name", ["implicit", "one_step", "none"])
def test_learned_starts_are_constants_where_they_have_no_gradient(name):
    """So that DistributedDataParallel does not wait for them."""
    layer = EMLayer(3, 2, gradient=name)
    assert len(layer.state_dict()) == 4
    assert not [p for p in layer.parameters() if p.requires_grad]


CASES = {  # covariance, points, dimensions, components, distance of the centres from 0
    "separated full": ("full", 200, 2, 3, 8.0),
    "moderate full": ("full", 200, 2, 3, 3.2),
    "overlapping full": ("full", 300, 2, 2, 2.0),
    "separated diag": ("diag", 200, 2, 3, 8.0),
    "moderate diag": ("diag", 200, 2, 3, 3.2),
    "overlapping diag": ("diag", 200, 4, 3, 1.8),
    "large overlapping full": ("full", 300, 4, 6, 2.5),
    "larger overlapping full": ("full", 800, 5, 8, 2.5),
    "moderate tied": ("tied", 200, 2, 3, 3.2),
    "moderate spherical": ("spherical", 200, 2, 3, 3.2),
}
QUICK = ("moderate full", "moderate diag", "moderate tied", "moderate spherical")


def errors(case, names, prior):
    """Relative errors against central differences of EM run to convergence, in 2 random
    directions.
    """
    covariance, n, dim, k, separation = CASES[case]
    x, mean = points(1, n, dim, k, separation)
    start = start_at(mean, covariance)
    options = {"starts": "given", "tolerance": 1e-13, "steps": 20_000, "prior": prior}
    weights = 1 + torch.arange(n, dtype=torch.float64)[None] % 3
    exact = EMLayer(k, dim, covariance, gradient="none", **options)
    found = {
        name: gradient(
            EMLayer(k, dim, covariance, gradient=name, **options), x, start=start, weights=weights
        )
        for name in names
    }
    numbers = []
    for seed in range(2):
        direction = normal(*x.shape, seed=100 + seed)
        step = 1e-5
        up, down = (
            score(exact(x + sign * step * direction, start=start, weights=weights))
            for sign in (1, -1)
        )
        numbers.append(
            torch.stack(
                [(up - down) / (2 * step), *((value * direction).sum() for value in found.values())]
            )
        )
    truth, *others = torch.stack(numbers, -1)
    return {
        name: ((other - truth).norm() / truth.norm()).item()
        for name, other in zip(names, others, strict=True)
    }


@pytest.fixture
def products(monkeypatch):
    """How many vector-Jacobian products each implicit gradient took, with the last."""
    counts = []
    gmres = fixed_point.gmres

    def counting(product, *rest):
        counts.append(1)

        def counted(v):
            counts[-1] += 1
            return product(v)

        return gmres(counted, *rest)

    monkeypatch.setattr(fixed_point, "gmres", counting)
    return counts


@pytest.mark.parametrize(
    ("case", "prior"),
    [
        *((case, FLAT) if case in QUICK else slow(case, FLAT) for case in CASES),
        slow("moderate full", PRIOR),
        ("moderate tied", PRIOR),
    ],
)
def test_implicit_gradients_are_those_of_em_run_to_convergence(case, prior, products):
    assert errors(case, ["implicit"], prior)["implicit"] <= 1e-6
    assert len(products) == 1
    assert 1 < products[0] <= 25


@pytest.mark.parametrize("case", ["separated full", "moderate diag"])
@pytest.mark.slow
def test_one_step_gradients_are_good_only_where_components_are_separated(case):
    error = errors(case, ["one_step"], FLAT)["one_step"]
    assert error < 0.05 if case.startswith("separated") else error > 0.2


@two_covariances
def test_implicit_gradients_are_those_of_many_unrolled_steps(covariance):
    x, mean = points(2, 60)
    weights = normal(2, 60, seed=9).exp().requires_grad_()
    options = {"starts": "given", "tolerance": 1e-13, "steps": 5000}
    x.requires_grad_()
    by = {}
    for name in ("implicit", "unroll"):
        result = EMLayer(3, 2, covariance, gradient=name, **options)(
            x, weights=weights, start=start_at(mean, covariance)
        )
        by[name] = torch.autograd.grad(
            score(result) + (result.responsibilities**2).sum(), (x, weights)
        )
    for a, b in zip(*by.values(), strict=True):
        assert (a - b).norm() / b.norm() < 1e-8


def test_no_implicit_gradient_takes_more_than_25_products(products, monkeypatch):
    """Not even of a fixed point whose system needs more, one EM step at a time: then the error is
    reported.
    """
    monkeypatch.setattr(fixed_point, "steps_in_one", lambda *_, **__: 1)
    x, mean = points(1, 300, 4, 6, 2.5)
    layer = EMLayer(6, 4, "full", starts="given", gradient="implicit", tolerance=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitGradientWarning)
        gradient(layer, x, start=start_at(mean))
    assert products == [25]


def test_memory_of_an_implicit_gradient_does_not_grow_with_the_steps():
    x, mean = points(2, 50)

    def kept(name, steps):
        layer = EMLayer(3, 2, steps=steps, gradient=name, tolerance=0, starts="given")
        total = []

        def pack(tensor):
            total.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            leaf = x.clone().requires_grad_()
            score(layer(leaf, start=start_at(mean, "diag"))).backward()
        return sum(total)

    assert kept("implicit", 200) == kept("implicit", 400) < kept("unroll", 20)
    assert kept("one_step", 20) == kept("one_step", 60) < kept("unroll", 20)
    assert kept("unroll", 40) > 1.8 * kept("unroll", 20)


def test_no_gradient_passes_through_em_with_none():
    x, mean = points()
    x.requires_grad_()
    found = EMLayer(3, 2, "full", gradient="none", starts="given")(x, start=start_at(mean))
    assert not any(part.requires_grad for part in parts(found))
    by_point = torch.autograd.grad(found.log_likelihood.sum(), x)[0][0]
    alone = Mixture(
        found.mixture.log_weight[0], FullGaussian(*(v[0] for v in found.mixture.components))
    )
    leaf = x.detach()[0].requires_grad_()
    close(by_point, torch.autograd.grad(mixture.log_prob(leaf, alone).mean(), leaf)[0])


@pytest.mark.parametrize("prior", [PRIOR, PseudoCounts()], ids=["posterior", "likelihood"])
@every_covariance
def test_a_component_without_points_has_finite_gradients(covariance, prior):
    x, mean = points(1, 40)
    mean[0] = 1e4
    for name in ("unroll", "implicit", "one_step"):
        layer = EMLayer(3, 2, covariance, gradient=name, starts="given", prior=prior)
        found = gradient(layer, x, start=start_at(mean, covariance))
        assert found.isfinite().all()
        assert found.abs().sum() > 0
    close(layer(x, start=start_at(mean, covariance)).mixture.components.mean[0, 0], mean[0])


def test_a_residual_too_large_for_an_implicit_gradient_warns_once():
    x, mean = points(1, 200, 4, 3, 1.8)
    layer = EMLayer(3, 4, steps=10, gradient="implicit", starts="given")
    with pytest.warns(ImplicitGradientWarning, match="EM has not converged: after 10 steps"):
        gradient(layer, x, start=start_at(mean, "diag"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradient(layer, x, start=start_at(mean, "diag"))
        EMLayer(3, 4, steps=10, gradient="implicit", starts="given")(
            x, start=start_at(mean, "diag")
        )  # no gradient wanted


def test_a_linear_system_that_is_not_solved_warns(monkeypatch):
    x, mean = points(1, 200, 4, 3, 1.8)
    monkeypatch.setattr(fixed_point, "MOST_PRODUCTS", 4)
    with pytest.warns(ImplicitGradientWarning, match="the linear system of an implicit gradient"):
        gradient(
            EMLayer(3, 4, gradient="implicit", starts="given"), x, start=start_at(mean, "diag")
        )


# ---- edges ---------------------------------------------------------------------------------------


@every_covariance
@every_gradient
@pytest.mark.parametrize("prior", [PRIOR, PseudoCounts()], ids=["posterior", "likelihood"])
def test_a_set_without_points_keeps_its_start(covariance, gradient, prior):
    x, _ = points(3, 30)
    x[1] = torch.nan
    mask = torch.ones(3, 30, dtype=torch.bool)
    mask[1] = False
    layer = EMLayer(3, 2, covariance, gradient=gradient, prior=prior).double()
    x.requires_grad_()
    found = layer(x, mask=mask)
    start = layer.start
    for value, expected in zip(parts(found), (start.log_weight, *start.components), strict=True):
        close(value[1], expected)
        assert value.isfinite().all()
    assert found.log_likelihood[1] == found.residual[1] == found.responsibilities[1].sum() == 0
    (score(found) + found.responsibilities.sum()).backward()
    assert (x.grad[1] == 0).all()
    assert x.grad.isfinite().all()
    close(x.grad[::2], _gradient_of_two(layer, x.detach()[::2], mask[::2]), 1e-7)


def _gradient_of_two(layer, x, mask):
    x = x.clone().requires_grad_()
    result = layer(x, mask=mask)
    values = (*parts(result), result.log_likelihood)
    total = sum(
        (value * normal(3, *value.shape[1:], seed=40 + i)[::2]).sum()
        for i, value in enumerate(values)
    )
    return torch.autograd.grad(total + result.responsibilities.sum(), x)[0]


@every_gradient
@pytest.mark.parametrize("shape", [(2, 0, 2), (2, 5, 2), (0, 5, 2)])
def test_sets_that_are_all_empty(shape, gradient):
    layer = EMLayer(3, 2, "full", gradient=gradient)
    x = torch.zeros(shape, requires_grad=True)
    found = layer(x, weights=torch.zeros(shape[:2]))
    assert all(part.isfinite().all() for part in parts(found))
    assert found.responsibilities.shape == (*shape[:2], 3)
    if gradient == "unroll":
        score(found).backward()
        assert all((parameter.grad == 0).all() for parameter in layer.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@every_gradient
def test_em_is_not_narrower_than_float32_under_autocast(dtype, gradient):
    x, _ = points(2, 30)
    layer = EMLayer(3, 2, "full", gradient=gradient)
    x = x.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x)
        total = score(found)
    assert all(value.dtype == torch.float32 for value in (*parts(found), *found[1:]))
    same(found, layer(x.float()), 1e-6)
    total.backward()
    assert x.grad.dtype == dtype
    assert x.grad.isfinite().all()


def test_inside_a_network_under_autocast():
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    layer = EMLayer(3, 2, gradient="implicit")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        score(layer(network(normal(2, 30, 3).float()))).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in network.parameters())


@every_covariance
@every_gradient
def test_points_that_are_all_the_same_are_finite(covariance, gradient):
    x = torch.full((1, 5, 2), 0.5, requires_grad=True)
    found = EMLayer(3, 2, covariance, gradient=gradient)(x)
    score(found).backward()
    assert all(part.isfinite().all() for part in (*parts(found), x.grad))


@every_covariance
def test_the_state_is_plain_tensors_and_starts_differ(covariance, tmp_path):
    layer = EMLayer(
        3, 2, covariance, seed=1, prior=PseudoCounts(1.0, 2.0, torch.tensor([1.0, 4.0]))
    )
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    other = EMLayer(3, 2, covariance, seed=2)
    assert not other.start.components.mean.equal(layer.start.components.mean)
    other = EMLayer(3, 2, covariance, seed=2, prior=PseudoCounts(1.0, 2.0, torch.ones(2)))
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    x, _ = points(2)
    same(other(x), layer(x))
    mean = layer.start.components.mean
    assert torch.pdist(mean).min() > 0.1


BAD = {
    "components": lambda: EMLayer(0, 2),
    "dim": lambda: EMLayer(2, 0),
    "covariance": lambda: EMLayer(2, 2, "round"),
    "gradient": lambda: EMLayer(2, 2, gradient="exact"),
    "steps": lambda: EMLayer(2, 2, steps=0),
    "tolerance": lambda: EMLayer(2, 2, tolerance=-1.0),
    "starts": lambda: EMLayer(2, 2, starts="random"),
    "prior.covariance": lambda: EMLayer(2, 2, prior=PseudoCounts(covariance=-1.0)),
    "prior.variance": lambda: EMLayer(2, 2, prior=PseudoCounts(variance=torch.ones(3))),
    "prior.floor": lambda: EMLayer(2, 2, prior=PseudoCounts(floor=1e-3)),
    "x has shape": lambda: EMLayer(2, 2)(torch.zeros(4, 2)),
    r"expected \(sets, points, 2\)": lambda: EMLayer(2, 2)(torch.zeros(1, 4, 3)),
    "x has dtype": lambda: EMLayer(2, 2)(torch.zeros(1, 4, 2, dtype=torch.long)),
    "mask has shape": lambda: EMLayer(2, 2)(
        torch.zeros(1, 4, 2), mask=torch.ones(1, 3, dtype=torch.bool)
    ),
    "mask has dtype": lambda: EMLayer(2, 2)(torch.zeros(1, 4, 2), mask=torch.ones(1, 4)),
    "weights has shape": lambda: EMLayer(2, 2)(torch.zeros(1, 4, 2), weights=torch.ones(4)),
    "negative": lambda: EMLayer(2, 2)(torch.zeros(1, 4, 2), weights=-torch.ones(1, 4)),
    "weights holds": lambda: EMLayer(2, 2)(
        torch.zeros(1, 4, 2), weights=torch.full((1, 4), torch.nan)
    ),
    "NaN or infinite": lambda: EMLayer(2, 2)(torch.full((1, 4, 2), torch.inf)),
    "fewer points than the 5 components": lambda: EMLayer(5, 2, prior=PseudoCounts())(
        torch.zeros(1, 4, 2)
    ),
    "singular": lambda: EMLayer(2, 2, "full", prior=PseudoCounts())(torch.zeros(1, 4, 2)),
    "start is missing": lambda: EMLayer(2, 2, starts="given")(torch.zeros(1, 4, 2)),
    "no start of its own": lambda: EMLayer(2, 2, starts="given").start,
    "start is given": lambda: EMLayer(2, 2)(
        torch.zeros(1, 4, 2), start=start_at(normal(2, 2), "diag")
    ),
    "FullGaussian components": lambda: EMLayer(2, 2, starts="given")(
        torch.zeros(1, 4, 2), start=start_at(normal(2, 2))
    ),
    "start.log_weight has shape": lambda: EMLayer(2, 2, starts="given")(
        torch.zeros(1, 4, 2), start=start_at(normal(3, 2), "diag")
    ),
    "start.log_var has shape": lambda: EMLayer(2, 2, starts="given")(
        torch.zeros(1, 4, 2),
        start=Mixture(torch.zeros(2), Gaussian(torch.zeros(2, 2), torch.zeros(2))),
    ),
    "start holds": lambda: EMLayer(2, 2, "full", starts="given")(
        torch.zeros(1, 4, 2),
        start=Mixture(torch.zeros(2), FullGaussian(torch.zeros(2, 2), torch.zeros(2, 2, 2))),
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_in_one_sentence(message):
    with pytest.raises(InputError, match=message) as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)
