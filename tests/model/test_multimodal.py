"""The multimodal VAE against a linear-Gaussian model of two senses, whose bounds are known."""

import copy
import math

import pytest
import senses
import torch
from senses import X_NODES, X_WEIGHTS, evidence, exact, population

from jensen.base.errors import InputError
from jensen.family.gaussian import Gaussian
from jensen.model.likelihood import Bernoulli, Normal
from jensen.model.mlp import MLPDecoder, MLPEncoder
from jensen.model.multimodal import MultimodalVAE
from jensen.model.one_hot import OneHot
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE
from jensen.objective.beta import Beta

NAN = math.nan
ROUNDING = 3e-7  # likelihoods take the mean in float32
FUSIONS = {"product": -3.04060962, "mixture": -3.820376159, "subsets": -3.56045398}


def expected_bound(model, x, subsets):
    """The mean of the bound over z, exactly, in rows of each subset: `(subsets, B)` each."""
    found = 0
    for node, weight in zip(X_NODES, X_WEIGHTS, strict=True):
        noise = torch.zeros(subsets * len(x), model.noise_dim, dtype=torch.float64)
        noise[:, 0] = node
        noise[:, 1:] = -50  # begins at the first subset
        bound = model(x, noise).bound
        found = found + weight * torch.stack([bound.distortion, bound.rate])
    return found.unflatten(1, (subsets, len(x)))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_bound_of_each_fusion_is_that_of_the_theory(fusion):
    model = exact(fusion)
    x, weight = population()
    subsets = max(1, len(model.fuse.table))
    distortion, rate = expected_bound(model, x, subsets) @ weight
    torch.testing.assert_close(
        -(distortion + rate).mean(),
        torch.tensor(FUSIONS[fusion], dtype=torch.float64),
        rtol=0,
        atol=ROUNDING,
    )
    if fusion == "subsets":
        torch.testing.assert_close(
            torch.stack([distortion, rate]).T,
            torch.tensor(
                [
                    [2.344729886, 0.8047189562],
                    [4.144729886, 0.3465735903],
                    [2.144729886, 0.8958797346],
                ]
            ).double(),
            rtol=0,
            atol=ROUNDING,
        )


def test_in_evaluation_every_fusion_gives_the_bound_of_all_that_an_example_has():
    x, weight = population()
    for fusion in FUSIONS:
        distortion, rate = expected_bound(exact(fusion).eval(), x, 1)[:, 0] @ weight
        assert -(distortion + rate) == pytest.approx(FUSIONS["product"], abs=ROUNDING)


def test_the_bound_of_one_sense_alone_is_its_evidence():
    model = exact().eval()
    x, weight = population()
    for name, place, expected in (("see", 0, 1.530510309), ("hear", 1, 1.765512123)):
        other = x.clone()
        other[:, 1 - place] = NAN
        distortion, rate = expected_bound(model, other, 1)[:, 0] @ weight
        assert distortion + rate == pytest.approx(expected, abs=ROUNDING)
        terms = model.held_out_terms(x, model(x), torch.zeros(len(x), 1).double())
        assert terms[f"rate_{name}"] @ weight == pytest.approx(rate.item(), abs=1e-12)


def test_given_bounds_the_evidence_of_what_a_subset_saw():
    model = exact("subsets", reconstruct="given")
    x, weight = population()
    distortion, rate = expected_bound(model, x, 3) @ weight
    torch.testing.assert_close(
        distortion + rate,
        torch.tensor([1.530510309, 1.765512123, 3.04060962]).double(),
        rtol=0,
        atol=ROUNDING,
    )


@pytest.mark.parametrize(
    ("sigma", "mean", "variance", "kl", "log_p"),
    [
        (0.25, 1.777777778, 0.055555556, 2.55321057, -5.45232414),
        (0.5, 1.333333333, 0.166666667, 1.368101957, -4.707276287),
        (1.0, 0.666666667, 1 / 3, 0.4381950332, -3.720516544),
        (2.0, 0.222222222, 0.444444444, 0.1523786884, -3.3809338),
        (4.0, 0.060606061, 0.484848485, 0.1062202093, -3.707342968),
    ],
)
def test_two_cues_are_weighed_as_the_theory_says(sigma, mean, variance, kl, log_p):
    model = exact(see=sigma).eval()
    x = torch.tensor([[2.0, 0.0]]).double()
    q = model.encode(x)
    assert q.mean.item() == pytest.approx(mean, abs=1e-9)
    assert q.log_var.exp().item() == pytest.approx(variance, abs=1e-9)
    inference = model(x, torch.zeros(1, 1).double())
    assert inference.bound.rate.item() == pytest.approx(kl, abs=ROUNDING)
    assert model.evidence(x, 2).log_p.item() == pytest.approx(log_p, abs=ROUNDING)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_importance_sampling_of_every_fusion_is_right_and_its_error_falls_with_the_draws(fusion):
    model = exact(fusion)
    covariance = 1 + torch.diag(torch.tensor([senses.SEE**2, senses.HEAR**2])).double()
    points = torch.randn(20, 2, generator=torch.Generator().manual_seed(1)).double()
    x = points @ torch.linalg.cholesky(covariance).T
    x[0] = torch.tensor([2.0, NAN])
    x[1] = torch.tensor([NAN, -1.0])
    truth = evidence(x)
    errors = []
    for draws in (100, 1000, 10_000):
        found = model.evidence(x, draws)
        error = found.log_p.sum() - truth.sum()
        spread = found.standard_error.square().sum().sqrt()
        assert error.abs() <= 2 * spread + 1e-9
        errors.append(found.standard_error[2:].mean().item())
    if fusion != "product":  # whose posterior is exact: it has no error
        for more, fewer in zip(errors[1:], errors, strict=False):
            assert fewer / more == pytest.approx(10**0.5, rel=0.2)
    else:
        assert max(errors) < 1e-7


def test_the_error_of_one_draw_a_subset_is_no_less_than_it_is():
    """Of which the variance within a subset tells nothing."""
    model = exact("subsets")
    x = torch.tensor([[2.0, 0.0], [0.5, -1.0]]).double()
    looks = [model.evidence(x, len(model.fuse.table), key=key) for key in range(400)]
    apart = torch.stack([look.log_p for look in looks]).std(0)
    told = torch.stack([look.standard_error for look in looks]).square().mean(0).sqrt()
    assert ((0.9 * apart < told) & (told < 2 * apart)).all()


def test_of_nothing_the_posterior_is_the_prior_and_the_rate_exactly_0():
    x = torch.full((3, 2), NAN).double()
    for model in (exact(), exact(prior_expert=False)):
        model.eval()
        inference = model(x, torch.ones(3, 1).double())
        for bound in inference.bound:
            assert bound.eq(0).all()
        assert inference.posterior.mean.eq(0).all()
        assert model.evidence(x, 5).log_p.abs().max() < 1e-12


def test_a_missing_sense_leaves_no_trace_in_loss_or_gradient():
    torch.manual_seed(0)
    model = small()
    x = torch.randn(6, 5)
    x[:3, 3:] = NAN
    model(x).bound.elbo.mean().backward()
    assert all(part.grad.isfinite().all() for part in model.parameters())
    alone = x[:3]
    model.zero_grad()
    model(alone).bound.elbo.mean().backward()
    assert all(part.grad.eq(0).all() for part in model.encoder.each["hear"].parameters())
    assert all(part.grad.eq(0).all() for part in model.decoder.each["hear"].parameters())


@pytest.mark.parametrize("reconstruct", ["all", "given"])
def test_a_decoder_works_for_the_draws_that_are_asked_for_its_modality(monkeypatch, reconstruct):
    torch.manual_seed(0)
    model = small("subsets", reconstruct=reconstruct, weights={"hear": 2.0})
    x = torch.randn(6, 5)
    x[:2, 3:] = NAN
    noise = torch.randn(3 * 6, 3)
    asked = {}
    for name, decoder in model.decoder.each.items():
        decoder.register_forward_hook(
            lambda _, codes, __, name=name: asked.update({name: len(codes[0])})
        )

    def learned():
        model.zero_grad()
        bound = model(x, noise).bound
        bound.elbo.sum().backward()
        return [*bound, *(part.grad for part in model.parameters())]

    found = learned()
    # of see, hear and both: two ask for each, but where an example has sight alone all three do
    assert asked == ({"see": 18, "hear": 12} if reconstruct == "all" else {"see": 14, "hear": 8})
    monkeypatch.setattr("jensen.model.multimodal.rows_of", lambda *_: {})
    everything = learned()
    assert asked == {"see": 18, "hear": 18}
    for one, other in zip(found, everything, strict=True):
        torch.testing.assert_close(one, other)


def test_a_decoder_that_nobody_asks_works_for_one_draw_and_learns_nothing():
    model = small()
    x = torch.randn(4, 5)
    x[:, 3:] = NAN
    model(x).bound.elbo.sum().backward()
    assert all(part.grad.eq(0).all() for part in model.decoder.each["hear"].parameters())


def small(fusion="product", **more):
    return MultimodalVAE(
        {"see": [3], "hear": [2]},
        {"each": lambda **sizes: MLPEncoder(hidden=[6], **sizes)},
        {"each": lambda **sizes: MLPDecoder(hidden=[6], **sizes)},
        {"each": Normal},
        StandardNormal(),
        2,
        fusion,
        **more,
    )


@pytest.mark.parametrize("fusion", ["product", "mixture", "subsets"])
def test_a_model_of_one_modality_is_a_vae_bit_for_bit(fusion):
    torch.manual_seed(0)
    shape = {"x_shape": [4], "latent_dim": 2, "hidden": [6]}
    vae = VAE(MLPEncoder(**shape), MLPDecoder(**shape), Normal(0.5), StandardNormal(), 2)
    model = MultimodalVAE(
        {"only": [4]},
        {"only": copy.deepcopy(vae.encoder)},
        {"only": copy.deepcopy(vae.decoder)},
        {"only": Normal(0.5)},
        StandardNormal(),
        2,
        fusion,
    )
    objective = Beta(2.0)
    optimisers = [torch.optim.Adam(each.parameters(), lr=0.01) for each in (vae, model)]
    for step in range(5):
        x = torch.randn(8, 4)
        noise = torch.randn(16, model.noise_dim)
        losses = []
        for each, optimiser in zip((vae, model), optimisers, strict=True):
            inference = each(x, noise[:, : each.noise_dim])
            loss = objective(inference, torch.tensor(step))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append([loss, *inference.bound, *inference.posterior])
        for one, other in zip(*losses, strict=True):
            assert one.equal(other)
    for one, other in zip(vae.parameters(), model.parameters(), strict=True):
        assert one.equal(other)


@pytest.mark.parametrize("fusion", ["mixture", "subsets"])
def test_draws_go_through_the_subsets_of_what_an_example_has(fusion):
    model = exact(fusion)
    subsets = len(model.fuse.table)
    x = torch.tensor([[2.0, -1.0], [2.0, NAN], [NAN, -1.0]]).double()
    noise = torch.randn(6 * 3, 2, generator=torch.Generator().manual_seed(0)).double()
    mean = model(x, noise).posterior.mean[:, 0].unflatten(0, (6, 3))
    each = {"see": 1.6, "hear": -0.5, "both": (4 * 2 - 1) / 6}
    expected = [each["see"], each["hear"], each["both"]][:subsets] * (6 // subsets)
    torch.testing.assert_close(
        mean[:, 0].sort().values, torch.tensor(expected).double().sort().values
    )
    torch.testing.assert_close(mean[:, 1], torch.full((6,), 1.6).double())
    torch.testing.assert_close(mean[:, 2], torch.full((6,), -0.5).double())


def test_a_single_draw_takes_each_subset_equally_often():
    model = exact("subsets")
    x = torch.tensor([[2.0, -1.0]]).double().expand(3000, 2)
    rate = model(x, key=3).bound.rate
    values, counts = rate.unique(return_counts=True)
    assert len(values) == 3
    assert (counts - 1000).abs().max() < 4 * (3000 * 2 / 9) ** 0.5


def test_subsets_may_be_chosen_and_an_example_that_has_none_of_them_uses_all_it_has():
    model = exact("subsets", subsets=[["see", "hear"], ["see"]])
    x = torch.tensor([[2.0, -1.0], [NAN, -1.0]]).double()
    mean = model(x, torch.zeros(4, 2).double()).posterior.mean.unflatten(0, (2, 2))
    torch.testing.assert_close(mean[:, 0, 0].sort().values, torch.tensor([7 / 6, 1.6]).double())
    torch.testing.assert_close(mean[:, 1, 0], torch.full((2,), -0.5).double())


def test_what_is_missing_is_generated_from_the_rest():
    model = exact()
    x = torch.tensor([[2.0, NAN]]).double().expand(2000, 2)
    made = model.generate(x, samples=10)
    assert made.shape == (10, 2000, 2)
    assert made[..., 0].eq(2).all()
    assert made[..., 1].mean().item() == pytest.approx(1.6, abs=4 * (0.2 / 20_000) ** 0.5)
    assert made[..., 1].var().item() == pytest.approx(0.2, rel=0.05)
    again = model.generate(x[:3], index=torch.tensor([0, 1, 2]), samples=10)
    assert again.equal(made[:, :3])
    assert not model.generate(x[:3], key=1, samples=10).equal(again)
    with pytest.raises(TypeError):
        model.generate(x, 10)  # of samples, which would be a key


def test_weights_count_in_training_alone(caplog):
    x, _ = population()
    noise = torch.zeros(len(x), 1).double()
    plain = exact()
    with caplog.at_level("INFO", "jensen.model.multimodal"):
        weighed = exact(weights={"hear": 3.0})
    assert "no bound" in caplog.text
    each = plain.likelihood.distortions(plain.decoder(plain(x, noise).z), x)
    torch.testing.assert_close(
        weighed(x, noise).bound.distortion, each @ torch.tensor([1.0, 3.0]).double()
    )
    assert weighed.eval()(x, noise).bound.distortion.equal(plain(x, noise).bound.distortion)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoders": {"see": MLPEncoder}}, "encoders lacks 'hear'"),
        ({"decoders": {"each": MLPDecoder, "touch": MLPDecoder}}, "decoders has 'touch'"),
        ({"likelihoods": {"see": Normal}}, "likelihoods lacks 'hear'"),
        ({"likelihoods": {"each": Normal()}}, "_partial_"),
        ({"fusion": "sum"}, "fusion is 'sum'"),
        ({"fusion": "subsets", "subsets": [["see"], []]}, "empty"),
        ({"fusion": "subsets", "subsets": [["sea"]]}, "did you mean see"),
        ({"fusion": "subsets", "subsets": [["see"], ["see"]]}, "each subset once"),
        ({"subsets": [["see"]]}, "fusion is product"),
        ({"weights": {"see": 0.0}}, "weights of see is 0.0"),
        ({"weights": {"see": -1.0}}, "weights of see is -1.0: expected a number above 0"),
        ({"weights": {"see": NAN}}, "weights of see is nan"),
        ({"weights": {"sea": 1.0}}, "weights has 'sea'"),
        ({"reconstruct": "some"}, "reconstruct is 'some'"),
        ({"prior_expert": "no"}, "prior_expert is 'no'"),
        ({"modalities": {"see": [0], "hear": [1]}}, "modalities.see"),
        ({"modalities": {"a.b": [1]}}, "a.b"),
        ({"modalities": {}}, "modalities"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_one_sentence(change, words):
    given = {
        "modalities": {"see": [1], "hear": [1]},
        "encoders": {"each": MLPEncoder},
        "decoders": {"each": MLPDecoder},
        "likelihoods": {"each": Normal},
        "prior": StandardNormal(),
        "latent_dim": 1,
    }
    with pytest.raises(InputError, match=words) as raised:
        MultimodalVAE(**(given | change))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([[1.0, NAN, 0.0]], "modality picture .*NaN in a part"),
        ([[0.0, 0.3, 0.0]], "modality picture: .*0.3"),
        ([[NAN, NAN, NAN]], "none of the modalities"),
        ([[0.0, 1.0, math.inf]], "modality sound"),
        ([[0.0, 1.0]], "add up"),
    ],
)
def test_observations_that_are_none_are_refused(x, words):
    model = MultimodalVAE(
        {"picture": [2], "sound": [1]},
        {"each": MLPEncoder},
        {"each": MLPDecoder},
        {"picture": Bernoulli, "sound": Normal},
        StandardNormal(),
        1,
    )
    model.likelihood.check(torch.tensor([[0.0, 1.0, NAN], [NAN, NAN, 0.7]]))
    with pytest.raises(InputError, match=words):
        model.likelihood.check(torch.tensor(x))


def test_draws_that_are_no_multiple_of_the_subsets_are_refused():
    model = exact("subsets")
    with pytest.raises(InputError, match=r"objective.samples is 4 and model has 3 subsets"):
        model(torch.zeros(2, 2).double(), torch.zeros(8, 2).double())
    model.eval()(torch.zeros(2, 2).double(), torch.zeros(8, 2).double())


def test_an_encoder_that_gives_no_gaussian_is_named():
    model = small()
    model.encoder.each["see"] = torch.nn.Linear(3, 2)
    with pytest.raises(InputError, match=r"encoders\.see gives a Tensor"):
        model(torch.zeros(2, 5))


def test_the_terms_of_a_validation_add_up_and_are_0_where_a_sense_is_missing():
    model = small("subsets").eval()
    x = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    x[1, :3] = NAN
    x[2, 3:] = NAN
    noise = torch.randn(5, model.noise_dim)
    inference = model(x, noise)
    terms = model.held_out_terms(x, inference, noise)
    assert {*terms} == {
        f"{what}_{name}" for what in ("distortion", "elbo", "rate") for name in ("see", "hear")
    }
    total = terms["distortion_see"] + terms["distortion_hear"]
    torch.testing.assert_close(total, inference.bound.distortion)
    for name, gone in (("see", 1), ("hear", 2)):
        for what in ("distortion", "elbo", "rate"):
            assert terms[f"{what}_{name}"][gone] == 0
    alone = x.clone()
    alone[:, 3:] = NAN
    torch.testing.assert_close(terms["elbo_see"], model(alone, noise).bound.elbo)


def test_each_sense_has_a_posterior_of_its_own():
    model = exact()
    x = torch.tensor([[2.0, -1.0], [NAN, 1.0]]).double()
    each = model.encode_each(x)
    assert isinstance(each["see"], Gaussian)
    torch.testing.assert_close(each["see"].mean[:, 0], torch.tensor([1.6, 0.0]).double())
    torch.testing.assert_close(each["hear"].mean[:, 0], torch.tensor([-0.5, 0.5]).double())
    torch.testing.assert_close(each["see"].log_var.exp()[:, 0], torch.tensor([0.2, 1.0]).double())


def test_a_class_given_one_hot_has_the_log_probability_of_torchs_categorical():
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    label = torch.randint(4, (50,), generator=torch.Generator().manual_seed(1))
    x = torch.nn.functional.one_hot(label, 4).float()
    truth = torch.distributions.Categorical(logits=logits)
    likelihood = OneHot()
    likelihood.check(x)
    torch.testing.assert_close(likelihood.distortion(logits, x), -truth.log_prob(label))
    torch.testing.assert_close(likelihood.mean(logits), truth.probs)
    for wrong in (x * 0.5, x + x.roll(1, 1), x * 0):
        with pytest.raises(InputError, match="1 in one place"):
            likelihood.check(wrong)
