"""What is shown of models of several senses, of models that are exact and so have a known answer."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from model.senses import HEAR, SEE, evidence, exact
from scipy.stats import norm
from snapshots import randn
from torch import nn
from torch.nn.functional import one_hot

from jensen.base.errors import InputError
from jensen.bound.decomposition import decompose
from jensen.data.cues import cues
from jensen.data.phonemes import PHONEMES, phonemes
from jensen.diagnostics import mcgurk as syllables
from jensen.diagnostics.double_flash import double_flash
from jensen.diagnostics.mcgurk import mcgurk
from jensen.diagnostics.modalities import modalities, subsets
from jensen.diagnostics.picture import grid
from jensen.diagnostics.ventriloquism import ventriloquism
from jensen.family.cues import CountCues
from jensen.family.gaussian import LOG_VAR_BOUND, Gaussian
from jensen.model.column_normal import ColumnNormal
from jensen.model.multimodal import MultimodalVAE
from jensen.model.one_hot import OneHot
from jensen.model.prior import StandardNormal
from jensen.scores.mig_exact import mig_exact

PLACES = {name: list(place) for name, place in PHONEMES.items()}


def shown(model, images):
    return SimpleNamespace(senses=model.eval(), images=images)


def test_cross_and_rates_of_the_exact_model_are_those_of_the_theory():
    x = torch.tensor([[2.0, 0.0]]).double()
    found = modalities(shown(exact(), x), samples=2)
    assert found["cross_hear"].item() == pytest.approx(-2.076765978, abs=1e-6)
    for name, variance in (("see", SEE**2), ("hear", HEAR**2)):
        post = variance / (1 + variance)
        mean = x[0, int(name == "hear")].item() / (1 + variance)
        rate = 0.5 * (post + mean**2 - 1 - math.log(post))
        assert found[f"rate_{name}"].item() == pytest.approx(rate, abs=1e-6)
    assert found["adds_hear"].item() == pytest.approx(
        1.368101957 - found["rate_see"].item(), abs=1e-6
    )


@pytest.mark.parametrize("fusion", ["mixture", "subsets"])
def test_cross_is_estimated_as_well_by_every_fusion(fusion):
    x = cues(64).stored.double()
    found = modalities(shown(exact(fusion), x), samples=4000)
    alone = x.clone()
    alone[:, 1] = torch.nan
    truth = (evidence(x) - evidence(alone)).mean().item()
    assert found["cross_hear"].item() == pytest.approx(truth, abs=0.02)


def test_many_modalities_have_the_rates_of_one_of_all_but_one_and_of_all():
    assert len(subsets(tuple("abc"))) == 7
    assert [len(each) for each in subsets(tuple("abcde"))] == [1] * 5 + [4] * 5 + [5]


class Certain(nn.Module):
    """The expert that is certain of the class that one-hot x names: z is its number."""

    def __init__(self, log_var=-8.0):
        super().__init__()
        self.log_var = log_var

    def forward(self, x):
        place = x.argmax(1, keepdim=True).to(x) if x.shape[1] > 1 else x
        return Gaussian(place, torch.full_like(place, self.log_var))


class Logits(nn.Module):
    """Logits of the class whose number is nearest to z."""

    def forward(self, z):
        return -20 * (z - torch.arange(3).to(z)).square()


def test_labels_agree_where_they_can_be_told_and_else_by_chance():
    x = torch.cat([torch.arange(60.0).remainder(3)[:, None], one_hot(torch.arange(60) % 3)], 1)

    def model(log_var):
        return MultimodalVAE(
            {"number": [1], "label": [3]},
            {"number": Certain(log_var), "label": Certain()},
            {"number": nn.Identity(), "label": Logits()},
            {"number": ColumnNormal(1.0), "label": OneHot()},
            StandardNormal(),
            1,
            prior_expert=False,
        )

    assert modalities(shown(model(-8.0), x), samples=2)["agrees_label"] == 1
    blind = modalities(shown(model(12.0), x), samples=2)["agrees_label"]
    assert 0.1 < blind < 0.6
    assert "agrees_number" not in modalities(shown(model(-8.0), x), samples=2)


def numbers_and_labels(decoded, log_var=-8.0):
    """A number and its label, 0 to 2: the model says `decoded(z)` of the number where z is told."""
    x = torch.cat([torch.arange(60.0).remainder(3)[:, None], one_hot(torch.arange(60) % 3)], 1)

    class Said(nn.Module):
        def forward(self, z):
            return decoded(z)

    model = MultimodalVAE(
        {"number": [1], "label": [3]},
        {"number": Certain(), "label": Certain(log_var)},
        {"number": Said(), "label": Logits()},
        {"number": ColumnNormal(1.0), "label": OneHot()},
        StandardNormal(),
        1,
        prior_expert=False,
    )
    return shown(model, x)


def test_what_is_generated_from_a_label_is_coherent_where_it_is_told_to_be_of_it():
    def known(x):
        return one_hot(x[:, 0].round().long().clamp(0, 2), 3)

    right = numbers_and_labels(lambda z: z)
    found = modalities(right, samples=2)
    assert found["coherent_label_number"] == 1  # by the model's own label of that number
    by_hand = modalities(right, samples=2, classifiers={"number": {"label": known}})
    assert by_hand["coherent_label_number"] == 1
    wrong = modalities(numbers_and_labels(lambda z: z.clamp(max=1)), samples=2)
    assert wrong["coherent_label_number"].item() == pytest.approx(2 / 3, abs=0.05)
    other = modalities(
        right, samples=2, classifiers={"number": {"label": lambda x: 1 - known(x).float()}}
    )
    assert other["coherent_label_number"] < 0.05
    blind = modalities(numbers_and_labels(lambda z: z, log_var=12.0), samples=2)
    assert 0.1 < blind["coherent_label_number"] < 0.6


@pytest.mark.parametrize(
    ("classifiers", "words"),
    [
        ({"sound": {}}, "classifiers has 'sound'"),
        ({"number": {"class": max}}, r"classifiers\.number has 'class'"),
        ({"number": max}, r"classifiers\.number is"),
        ({"number": {"label": 3}}, r"classifiers\.number\.label is 3"),
    ],
)
def test_classifiers_of_what_there_is_not_are_refused(classifiers, words):
    with pytest.raises(InputError, match=words) as raised:
        modalities(numbers_and_labels(lambda z: z), samples=2, classifiers=classifiers)
    assert "\n" not in str(raised.value)


def test_pictures_show_what_is_generated_from_each_subset_of_the_others(monkeypatch):
    model = MultimodalVAE(
        {"image": [1, 1, 1], "a": [1], "b": [1], "c": [1]},
        {
            "image": nn.Sequential(nn.Flatten(), Certain()),
            "each": lambda x_shape, latent_dim: Certain(),
        },
        {
            "image": nn.Unflatten(1, (1, 1, 1)),
            "each": lambda x_shape, latent_dim: nn.Identity(),
        },
        {"each": ColumnNormal},
        StandardNormal(),
        1,
    )
    rows = []
    monkeypatch.setattr(
        "jensen.diagnostics.modalities.grid",
        lambda images, labels: rows.append((images, labels)) or grid(images, labels),
    )
    x = torch.rand(20, 4)
    found = modalities(shown(model, x), samples=2)
    assert found["given_image"].dtype == torch.uint8
    assert found["given_image"].shape[0] == 3
    ((images, labels),) = rows
    assert labels == (
        "data",
        *(f"given\n{words}" for words in ("a", "b", "c", "a\nb", "a\nc", "b\nc", "a\nb\nc")),
    )
    assert images[0].flatten().equal(x[:8, 0])
    generated = model.generate(x[:8].index_fill(1, torch.tensor([0, 2, 3]), torch.nan))[0, :, 0]
    assert images[1].flatten().equal(generated)
    assert "cross_image" in found["table"]
    assert "given_a" not in found


def two_sources(place=0.25, prior=1.0):
    """The exact experts of place and time, in latents that are turned about and scaled."""
    noise = {"see": [place, 2.0], "hear": [2.0, 0.25]}

    class Expert(nn.Module):
        def __init__(self, deviations):
            super().__init__()
            self.raw = torch.tensor(
                [
                    LOG_VAR_BOUND * math.atanh(2 * math.log(each) / LOG_VAR_BOUND)
                    for each in deviations
                ]
            )

        def forward(self, x):
            flipped = -x.flip(1)
            return Gaussian(flipped, self.raw.flip(0).to(x).expand_as(x))

    class Back(nn.Module):
        def forward(self, z):
            return -z.flip(1)

    return noise, MultimodalVAE(
        {name: [2] for name in noise},
        {name: Expert(each) for name, each in noise.items()},
        {name: Back() for name in noise},
        {name: ColumnNormal(each) for name, each in noise.items()},
        StandardNormal(),
        2,
    )


def test_the_weights_of_an_exact_model_are_those_of_the_theory_whichever_way_its_latents_lie():
    noise, model = two_sources()
    x = cues(200, noise).stored
    found = ventriloquism(shown(model, x), noise)
    for name, source in (("see", 0), ("hear", 1)):
        assert found[f"weight_{name}_{source}"].item() == pytest.approx(0.9275362319, abs=1e-5)
        assert found[f"weight_{name}_{1 - source}"].item() == pytest.approx(0.0144927536, abs=1e-5)
        assert found[f"variance_{source}"].item() == pytest.approx(0.05797101449, rel=0.02)
    assert found["weight_error"] < 1e-5
    assert found["variance_error"] < 0.02
    assert found["weights"].shape == (3, 450, 700)


def joint_of_two_sources(count=400):
    """Cues of a place that is 1 or -1, the factor, and of a time: the posterior of the exact model,
    and mean `(N, 2)` and deviations `(2,)` by the sums of precisions.
    """
    noise, model = two_sources()
    factor = torch.arange(count) % 2
    source = torch.stack([2.0 * factor - 1, randn(count, seed=1)], 1)
    deviations = torch.tensor([*noise.values()])
    scatter = randn(count, 2, 2, seed=2) * deviations
    x = source.unsqueeze(1) + scatter
    precision = deviations**-2
    total = precision.sum(0) + 1
    mean = (precision * x).sum(1) / total
    return model.eval().encode(x.flatten(1)), factor, mean.double().numpy(), total.numpy() ** -0.5


def test_the_decomposition_of_a_joint_posterior_is_that_of_quadrature():
    q, _, mean, deviation = joint_of_two_sources()
    rate = 0.5 * (mean**2 + deviation**2 - 1) - np.log(deviation)
    # q(z_d), whose latents are turned about: time comes first, with its sign changed
    grid = np.linspace(-6, 6, 4001)[:, None]
    apart = 0.0
    for each, sd in zip(mean.T, deviation, strict=True):
        density = norm.pdf(grid, each, sd).mean(1)
        ratio = np.log(density) - norm.logpdf(grid[:, 0])
        apart += np.trapezoid(np.where(density > 1e-300, density * ratio, 0.0), grid[:, 0])
    found = decompose(q, samples=20_000, generator=torch.Generator().manual_seed(0))
    assert found.rate.item() == pytest.approx(rate.sum(1).mean(), abs=1e-5)
    assert found.dimension_wise_kl.item() == pytest.approx(apart, abs=1e-4)
    # place and time are independent, but for the 400 examples that there are: q(z) on a grid
    side = np.linspace(-4, 4, 401)
    place, time = (
        norm.pdf(side[:, None], each, sd) for each, sd in zip(mean.T, deviation, strict=True)
    )
    joint = place @ time.T / len(mean)
    log_joint = np.log(joint, where=joint > 1e-300, out=np.zeros_like(joint))
    entropy = -np.trapezoid(np.trapezoid(joint * log_joint, side), side)
    told = entropy - (np.log(deviation) + 0.5 * np.log(2 * np.pi * np.e)).sum()
    assert abs(found.mutual_information.item() - told) < 4 * found.mutual_information_se.item()
    total = found.mutual_information + found.total_correlation + found.dimension_wise_kl
    assert total.item() == pytest.approx(found.rate.item(), abs=1e-6)


def test_scores_of_a_joint_posterior_are_those_of_quadrature():
    q, factor, mean, deviation = joint_of_two_sources()
    grid = np.linspace(-6, 6, 4001)[:, None]
    told = []
    for each, sd in zip(mean.T, deviation, strict=True):
        density = norm.pdf(grid, each, sd)
        own = np.stack([density[:, factor.numpy() == value].mean(1) for value in (0, 1)])
        entropies = -np.trapezoid(
            np.where(own > 1e-300, own * np.log(np.maximum(own, 1e-300)), 0.0), grid[:, 0], axis=1
        )
        whole = density.mean(1)
        entropy = -np.trapezoid(np.where(whole > 1e-300, whole * np.log(whole), 0.0), grid[:, 0])
        told.append((entropy - entropies.mean()) / math.log(2))
    found = mig_exact(q.mean, factor[:, None], q.log_var, samples=20_000)
    assert found["mig_exact"] == pytest.approx(
        told[0] - max(told[1], 0.0), abs=4 * found["standard_error"] + 1e-4
    )
    assert told[0] > 0.9


def test_a_model_that_trusts_the_wrong_sense_has_the_error_that_it_has():
    _, model = two_sources(place=4.0)
    noise = {"see": [0.25, 2.0], "hear": [2.0, 0.25]}
    found = ventriloquism(shown(model, cues(200, noise).stored), noise)
    trusted = (1 / 16) / (1 / 16 + 1 / 4 + 1)
    assert found["weight_error"].item() == pytest.approx(0.9275362319 - trusted, abs=1e-5)


class Observer(nn.Module):
    """A model that answers as exact inference does."""

    latent_dim = 1

    def __init__(self, names, answer):
        super().__init__()
        self.modalities = SimpleNamespace(names=names)
        self.answer = answer

    def generate(self, x, samples):
        return torch.cat([x[:, :2], self.answer(x[:, :2])], 1).expand(samples, *x.shape)


FLASHES = CountCues.of(0.5, [0.8, 0.3], 5)


@pytest.mark.slow
def test_a_model_that_answers_exactly_has_the_reports_of_the_ideal_observer():
    names = ("flash", "beep", "flashes", "beeps")
    model = Observer(names, lambda x: FLASHES.infer(x.double()).source.flatten(1).float())
    found = double_flash(shown(model, torch.zeros(4, 12)))
    assert found["error"] < 1e-6
    assert found["fission"].item() == pytest.approx(found["fission_ideal"].item(), abs=1e-5)
    assert found["fission_ideal"] > 1.3  # 1.08 beside one beep
    assert found["fusion_ideal"].item() == pytest.approx(1.7178, abs=0.1)  # of 200 trials
    assert found["fission_gaussian"].item() == pytest.approx(1.2960864, abs=0.1)  # over the noise
    assert found["picture"].shape == (3, 800, 1300)


@pytest.mark.slow
def test_where_the_sound_is_quiet_the_flash_changes_the_beeps():
    quiet = CountCues.of(0.5, [0.3, 0.8], 5)
    names = ("flash", "beep", "flashes", "beeps")
    model = Observer(names, lambda x: quiet.infer(x.double()).source.flatten(1).float())
    found = double_flash(shown(model, torch.zeros(4, 12)), flash_sd=0.3, beep_sd=0.8)
    # as reports of flashes beside a loud sound, over the noise: 401 x 401 cells of it
    step = torch.linspace(-6, 6, 401, dtype=torch.float64)
    weight = (-0.5 * step.square()).softmax(0)
    for name, shows in (("fission", (1, 2)), ("fusion", (2, 1))):
        flash, beep = (
            shows[place] + sd * part
            for place, (sd, part) in enumerate(
                zip((0.8, 0.3), torch.meshgrid(step, step, indexing="ij"), strict=True)
            )
        )
        x = torch.stack([flash, beep], -1).flatten(0, 1)
        report = FLASHES.infer(x).mean()[:, 0].reshape(401, 401)
        expected = (weight @ report @ weight).item()
        assert found[f"{name}_beeps_ideal"].item() == pytest.approx(expected, abs=0.1)
        assert found[f"{name}_beeps"].item() == pytest.approx(
            found[f"{name}_beeps_ideal"].item(), abs=1e-5
        )
    # one beep becomes more beside two flashes, while sight hears nothing of two beeps
    assert found["fission_beeps"] > 1.3
    assert found["fission"] < 1.1


def test_who_sees_ga_and_hears_ba_perceives_da():
    three = torch.tensor([PLACES[name] for name in ("ba", "da", "ga")], dtype=torch.float64)
    sd = torch.tensor([0.5, 0.6]).double()
    cases = torch.tensor([[2.0, 0.0], [math.nan, 0.0], [2.0, math.nan]], dtype=torch.float64)
    found = syllables.ideal(cases, three, sd)
    expected = [
        [0.000965106701, 0.987912863, 0.0111220301],
        [0.70672466, 0.29054320, 0.00273214],
        [0.000182753, 0.455037933, 0.544779314],
    ]
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=0, atol=1e-7)
    at = torch.tensor([*PLACES.values()], dtype=torch.float64)
    names = ("see", "hear", "phoneme")
    model = Observer(names, lambda x: syllables.ideal(x.double(), at, sd).float())
    result = mcgurk(shown(model, torch.zeros(2, 8)), PLACES)
    assert result["error"] < 1e-6
    assert result["see_ga_hear_ba_da"].item() == pytest.approx(0.9879, abs=1e-3)
    assert result["table"].dtype == torch.uint8


def test_phonemes_are_measured_about_their_places():
    examples = phonemes(60_000)
    x = examples.stored.double()
    for number, place in enumerate(PHONEMES.values()):
        own = x[examples.factors[:, 0] == number]
        assert own[:, 2 + number].eq(1).all()
        assert own[:, :2].mean(0).tolist() == pytest.approx(place, abs=0.03)
        assert own[:, :2].std(0).tolist() == pytest.approx([0.5, 0.6], abs=0.02)


@pytest.mark.parametrize(
    ("diagnostic", "arguments"),
    [
        (modalities, {}),
        (ventriloquism, {"noise": {"see": 1.0}}),
        (double_flash, {}),
        (mcgurk, {"places": PLACES}),
    ],
)
def test_of_another_model_each_says_what_it_expects(diagnostic, arguments):
    with pytest.raises(InputError, match=r"expected .*model=multimodal; leave it out"):
        diagnostic(SimpleNamespace(senses=None, images=torch.zeros(2, 2)), **arguments)
