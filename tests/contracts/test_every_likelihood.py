"""The contract of `model.likelihood.Likelihood`, for every choice of `conf/model/likelihood`:
another one is covered by its conf file."""

import io
import pickle

import pytest
import torch
from composing import choices
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.func import vmap

from jensen.base.errors import InputError
from jensen.run.conf import conf_folder

BINARY = {"bernoulli", "made", "pixelcnn"}
COUNTS = {"poisson", "negative_binomial"}
TOGETHER = {"made", "pixelcnn", "categorical"}
"""Of places that are not told apart, so that a shape is theirs alone."""
DRAWN = {"made", "pixelcnn"}
"""Whose mean is a draw."""
every_likelihood = pytest.mark.parametrize("choice", choices("model/likelihood"))


def build(choice):
    own = OmegaConf.load(conf_folder() / "model" / "likelihood" / f"{choice}.yaml")
    return instantiate(OmegaConf.create({"data": {"x_shape": [2, 3, 3]}, "own": own}).own)


def trained(choice):
    torch.manual_seed(0)
    likelihood = build(choice)
    if choice in TOGETHER:
        for parameter in likelihood.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    for seed in range(3):
        likelihood.distortion(*event(choice, seed=seed))
    return likelihood.eval()


def event(choice, rows=6, seed=0, dtype=torch.float32):
    """A decoder's output and observations, `(rows, 2, 3, 3)`."""
    generator = torch.Generator().manual_seed(seed)
    output = 3 * torch.randn(rows, 2, 3, 3, generator=generator, dtype=torch.float64)
    x = torch.rand(rows, 2, 3, 3, generator=generator, dtype=torch.float64)
    if choice in COUNTS:
        return output.div(3).to(dtype), (9 * x).floor().to(dtype)
    if choice == "categorical":
        x = torch.stack([x[:, 0].round(), 1 - x[:, 0].round()], 1)
    if choice == "discretised_logistic":
        x = (255 * x).round() / 255
    return output.to(dtype), (x.round() if choice in BINARY else x).to(dtype)


@every_likelihood
def test_a_distortion_is_one_number_an_example_whatever_the_shape_of_the_event(choice):
    likelihood = trained(choice)
    (output, x) = event(choice)
    whole = likelihood.distortion(output, x)
    assert whole.shape == (6,)
    assert whole.dtype == torch.float32
    assert whole.isfinite().all()
    torch.testing.assert_close(likelihood.distortion(output[:1], x[:1]), whole[:1])
    if choice in TOGETHER:
        return
    torch.testing.assert_close(likelihood.distortion(output.flatten(1), x.flatten(1)), whole)
    by_pixel = likelihood.distortion(output.reshape(-1, 1), x.reshape(-1, 1)).reshape(6, -1).sum(1)
    torch.testing.assert_close(by_pixel, whole, rtol=1e-5, atol=1e-4)


@every_likelihood
def test_the_mean_has_the_shape_of_the_output_and_lies_among_the_observations(choice):
    likelihood = trained(choice)
    (output, x) = event(choice)
    mean = likelihood.mean(output)
    assert mean.shape == output.shape
    assert mean.isfinite().all()
    if "normal" not in choice and choice not in COUNTS:
        assert mean.min() >= 0
        assert mean.max() <= 1
    likelihood.check(x)


@every_likelihood
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_are_widened(choice, dtype):
    likelihood = trained(choice)
    (output, x) = event(choice)
    half = output.to(dtype)
    found = likelihood.distortion(half, x)
    assert found.dtype == torch.float32
    assert torch.equal(found, likelihood.distortion(half.float(), x))


@every_likelihood
@pytest.mark.parametrize("rows", [1, 6])
def test_gradients_are_those_of_finite_differences(choice, rows):
    """In some direction: computed in float32, so by steps that are seen there."""
    likelihood = trained(choice)
    (output, x) = event(choice, rows)
    way = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (slope,) = torch.autograd.grad(likelihood.distortion(output.requires_grad_(), x).sum(), output)
    above, below = (likelihood.distortion(output + step * way, x) for step in (0.01, -0.01))
    torch.testing.assert_close(
        (slope * way).sum((1, 2, 3)), (above - below) / 0.02, rtol=1e-3, atol=1e-2
    )


@every_likelihood
def test_a_stack_is_mapped_by_vmap(choice):
    likelihood = trained(choice)
    output, x = (
        torch.stack(pair) for pair in zip(event(choice), event(choice, seed=1), strict=True)
    )
    found = vmap(likelihood.distortion)(output, x)
    expected = torch.stack([likelihood.distortion(*each) for each in zip(output, x, strict=True)])
    torch.testing.assert_close(found, expected)


@every_likelihood
@pytest.mark.parametrize("copied", ["pickled", "loaded"])
def test_a_copy_goes_on_alike(choice, copied):
    likelihood = trained(choice)
    if copied == "pickled":
        other = pickle.loads(pickle.dumps(likelihood))
    else:
        file = io.BytesIO()
        torch.save(likelihood.state_dict(), file)
        file.seek(0)
        other = build(choice).eval()
        other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(
        other.distortion(*event(choice, seed=5)), likelihood.distortion(*event(choice, seed=5))
    )


@every_likelihood
def test_a_sample_is_of_the_likelihood_and_follows_the_key_and_the_example(choice):
    likelihood = trained(choice)
    output, _ = event(choice)
    index = torch.arange(6)
    drawn = likelihood.sample(output, 3, index)
    numbered = choice == "categorical"
    assert drawn.shape == (output[:, 0] if numbered else output).shape
    if not numbered:
        likelihood.check(drawn)
    assert torch.equal(likelihood.sample(output, 3, index), drawn)
    assert torch.equal(likelihood.sample(output[2:3], 3, index[2:3]), drawn[2:3])
    assert not torch.equal(likelihood.sample(output, 4, index), drawn)


@every_likelihood
def test_draws_have_the_mean_that_it_says(choice):
    if choice in DRAWN:
        pytest.skip("its mean is a draw; tests/model/test_autoregressive.py")
    likelihood = trained(choice)
    output, _ = event(choice, rows=1)
    draws = 400 if choice == "discretised_logistic" else 4000  # by 256 levels
    many = output.expand(draws, -1, -1, -1)
    drawn = likelihood.sample(many, 1, torch.arange(draws))
    mean = likelihood.mean(output)[0]
    if choice == "categorical":
        mean = mean[1]
    spread = drawn.std(0) / draws**0.5 + 1e-3
    assert ((drawn.mean(0) - mean).abs() < 5 * spread).all()


@every_likelihood
def test_a_temperature_of_nothing_is_refused(choice):
    output, _ = event(choice)
    with pytest.raises(InputError, match=r"temperature is 0: expected more than 0"):
        trained(choice).sample(output, 0, torch.arange(6), temperature=0.0)
