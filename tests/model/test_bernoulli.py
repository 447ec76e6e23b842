"""The Bernoulli distortion, by either of its ways, against 60 digits of mpmath."""

import mpmath
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jvp, vmap
from torch.nn import functional

from jensen.model import bernoulli
from jensen.model.bernoulli import LogSigmoid, _OfStep, bernoulli_distortion

LOGITS = [0.0, 1e-30, 1e-4, 0.3, 1.0, 5.0, 15.0, 17.0, 40.0, 88.0, 104.0, 1e3, 1e4]
LOGITS = sorted({sign * logit for logit in LOGITS for sign in (1, -1)})
X = [0.0, 0.1, 0.5, 0.7, 1.0]


@pytest.fixture(params=["AVX2", "AVX512"])
def processor(request, monkeypatch):
    monkeypatch.setattr(bernoulli, "_has_avx512", lambda: request.param == "AVX512")
    return request.param


def exact(logit, x):
    """Value and slope."""
    with mpmath.workdps(60):
        logit, x = mpmath.mpf(logit), mpmath.mpf(x)
        p = 1 / (1 + mpmath.exp(-logit))
        return mpmath.log1p(mpmath.exp(logit)) - x * logit, p - x


def event(seed=0, shape=(4, 1, 3, 5), dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logit = 4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    return logit.to(dtype), x.to(dtype)


@pytest.mark.parametrize("x", X)
@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 2**-24), (torch.float64, 2**-53)])
def test_value_and_slope_are_exact_to_rounding_at_any_logit(processor, dtype, unit, x):
    logit = torch.tensor(LOGITS, dtype=dtype)[:, None].requires_grad_()
    target = torch.full_like(logit, x).detach()
    found = bernoulli_distortion(logit, target)
    (slope,) = torch.autograd.grad(found.sum(), logit)
    for given, value, tilt in zip(logit[:, 0].tolist(), found, slope[:, 0], strict=True):
        expected, expected_slope = exact(given, target[0].item())
        within = 3 * unit * (1 + abs(given))
        assert abs(value.item() - expected) <= within
        assert abs(tilt.item() - expected_slope) <= 3 * unit


def test_it_errs_no_more_than_torch_s_own():
    logit, x = event(shape=(64, 1, 64, 64))
    expected = functional.binary_cross_entropy_with_logits(
        logit.double(), x.double(), reduction="none"
    )
    expected = expected.flatten(1).sum(1)
    own = functional.binary_cross_entropy_with_logits(logit, x, reduction="none").flatten(1).sum(1)
    error = (LogSigmoid.apply(logit, x)[0] - expected).abs()
    assert error.max() <= 1.5 * (own - expected).abs().max()
    assert error.mean() <= 1.2 * (own - expected).abs().mean()


@pytest.mark.filterwarnings("ignore:Input .* requires gradient")
def test_its_derivatives_of_both_orders_are_those_of_differences():
    found = lambda *both: LogSigmoid.apply(*both)[0]  # noqa: E731
    for shape in ((4, 1, 3, 5), (2, 1, 4, 8), (3, 6)):  # of 1, 16 and 2 to a logarithm
        both = tuple(part.requires_grad_() for part in event(shape=shape, dtype=torch.float64))
        assert gradcheck(found, both)
        assert gradgradcheck(found, both)


@pytest.mark.parametrize("width", [1, 2, 7, 12, 16, 48, 784])
def test_logarithms_of_products_are_the_sums_of_logarithms(width):
    logit, x = event(shape=(9, width))
    logit[0] = torch.tensor(LOGITS).repeat(width)[:width]
    expected = [
        mpmath.fsum(exact(given, seen)[0] for given, seen in zip(*both, strict=True))
        for both in zip(logit.tolist(), x.tolist(), strict=True)
    ]
    found = LogSigmoid.apply(logit, x)[0]
    for value, wanted in zip(found.tolist(), expected, strict=True):
        assert abs(value - wanted) <= 2**-24 * (width + 4 * abs(wanted))


@pytest.mark.parametrize("where", [(0, 0), (0, None), (None, 0)])
def test_vmap_maps_value_and_slope(processor, where):
    logit, x = event(shape=(2, 4, 1, 3, 5))
    mapped = [part if at == 0 else part[0] for part, at in zip((logit, x), where, strict=True)]
    total = lambda *both: bernoulli_distortion(*both).sum()  # noqa: E731
    values = vmap(bernoulli_distortion, in_dims=where)(*mapped)
    slopes = vmap(grad(total), in_dims=where)(*mapped)
    for one in range(2):
        both = [part[one] if at == 0 else part for part, at in zip(mapped, where, strict=True)]
        torch.testing.assert_close(values[one], bernoulli_distortion(*both), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(slopes[one], grad(total)(*both), rtol=1e-5, atol=1e-5)


def test_autocast_leaves_it_in_float32(processor):
    logit, x = event()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = bernoulli_distortion(logit, x)
    assert found.dtype == torch.float32
    assert torch.equal(found, bernoulli_distortion(logit, x))


def test_zeros_and_ones_of_any_dtype_are_observations(processor):
    logit, x = event()
    for dtype in (torch.float16, torch.float64):
        target = x.round().to(dtype)
        torch.testing.assert_close(
            bernoulli_distortion(logit, target).float(),
            bernoulli_distortion(logit, target.float()),
        )


def test_shapes_that_differ_are_refused(processor):
    logit, x = event()
    with pytest.raises(ValueError, match=r"(?i)expected|must be the same"):
        bernoulli_distortion(logit, x[:1])


def test_a_compiled_one_is_torch_s_own_in_one_graph(processor):
    logit, x = event()
    compiled = torch.compile(bernoulli_distortion, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(logit, x), bernoulli_distortion(logit, x))


def test_processors_without_fast_logarithms_and_other_devices_take_torch_s_own(monkeypatch):
    for capability, faster in (("AVX2", False), ("DEFAULT", False), ("AVX512", True)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        monkeypatch.setattr(bernoulli, "_has_avx512", bernoulli._has_avx512.__wrapped__)
        assert bernoulli._log_is_faster(torch.zeros(1)) == faster
        assert not bernoulli._log_is_faster(torch.zeros(1, device="meta"))
        monkeypatch.undo()


def test_a_step_takes_the_same_bits_as_a_function_that_can_be_transformed():
    logit = 3 * torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    logit[0] = torch.tensor([-90.0, 0.0, 90.0])
    x = torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(1))
    outcomes = []
    for function in (lambda *both: LogSigmoid.apply(*both)[0], _OfStep.apply):
        at = logit.clone().requires_grad_()
        found = function(at, x)
        outcomes.append((found, *torch.autograd.grad(found.mean(), at)))
    for one, other in zip(*outcomes, strict=True):
        assert torch.equal(one, other)
    wide = (logit[1:].double().requires_grad_(), x[1:].double().requires_grad_())
    assert gradcheck(_OfStep.apply, wide)
    assert gradgradcheck(_OfStep.apply, wide)


@pytest.mark.parametrize("shape", [(0, 16), (0, 1, 3, 5), (3, 0)])
def test_no_examples_and_no_pixels_have_no_distortion(processor, shape):
    logit = torch.zeros(shape, requires_grad=True)
    found = bernoulli_distortion(logit, torch.zeros(shape))
    found.sum().backward()
    assert found.tolist() == [0.0] * shape[0]
    assert logit.grad.shape == shape


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, of jvp
def test_forward_mode_and_many_slopes_at_once(processor):
    logit, x = event(shape=(2, 6), dtype=torch.float64)
    p = logit.sigmoid()

    def total(logit):
        return bernoulli_distortion(logit, x).sum()

    along = torch.ones_like(logit)
    torch.testing.assert_close(jvp(total, (logit,), (along,))[1], (p - x).sum())
    curved = hessian(total)(logit).reshape(12, 12)
    torch.testing.assert_close(curved, (p * (1 - p)).flatten().diag())
    each = torch.autograd.functional.jacobian(
        lambda logit: bernoulli_distortion(logit, x), logit, vectorize=True
    )
    torch.testing.assert_close(each.sum(1), p - x)
