"""The contract of a diagnostic, for every choice of `conf/diagnostics`, scores among them: another
one is covered by its conf file."""

import pickle
from functools import cache

import numpy as np
import pytest
import torch
from composing import choices
from diagnostics.snapshots import image_snapshot, linear_vae, randn, random_matrices, snapshot_of
from hydra.utils import instantiate
from omegaconf import OmegaConf

from jensen.algorithm.snapshot import point_inference, snapshot
from jensen.base.errors import InputError
from jensen.diagnostics.snapshot import Embedding, Film, check_families
from jensen.family.codes import Codes
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture
from jensen.model.gmm import GMM
from jensen.run.conf import conf_folder

SMALL = {
    "decomposition_full": {"samples": 500},
    "estimator_audit": {"sizes": [20, 60], "batches": 2, "samples": 200},
    "inference_gap": {"count": 4, "steps": 3, "samples": 8},
    "dci": {"train": 60, "test": 40},
    "dci_boost20": {"train": 60, "test": 40},
    "dci_1000": {"train": 60, "test": 40},
}
SENSES = {"modalities", "ventriloquism", "double_flash", "mcgurk"}
ELSEWHERE = {"em_slides", "bayesian_mixture", "score_field"} | SENSES
"""Of models that are no VAE: `test_em_slides.py`, `test_mixture_diagnostic.py`; of a prior
that is a diffusion: `test_score_field.py`; of several senses: `test_senses.py`."""
LINEAR = {"water_filling", "probabilistic_pca"}

every_diagnostic = pytest.mark.parametrize(
    "choice", [each for each in choices("diagnostics") if each not in ELSEWHERE]
)


def build(choice):
    around = {
        "data": {"variances": [4.0, 2.0, 1.0]},
        "objective": {"beta": 1.0},
        "model": {"likelihood": {"variance": 0.5}},
    }
    cfg = OmegaConf.create(
        around | {"own": OmegaConf.load(conf_folder() / "diagnostics" / f"{choice}.yaml")}
    )
    ((_, node),) = cfg.own.items()
    node.update(SMALL.get(choice, {}))
    return instantiate(node)


@cache
def images():
    """Three latents, two factors that the first two tell, and a prior that is a mixture."""
    snapshot = image_snapshot(latents=3, count=101)
    factors = torch.stack(
        [part > part.median() for part in snapshot.posterior.mean.T[:2]], 1
    ).long()
    prior = Mixture(torch.full((2,), -np.log(2)), Gaussian(randn(2, 3), randn(2, 3, seed=1)))
    return snapshot._replace(factors=factors, names=("one", "two"), prior=prior)


@cache
def vectors():
    model = linear_vae(**random_matrices(3, 2), noise=0.5)
    return snapshot_of(model, randn(101, 3, seed=1))


@cache
def points():
    """A mixture's own: codes without noise, which have neither posterior nor rate."""
    x = randn(101, 1, 4, 4) + 4.0 * torch.arange(2).repeat_interleave(51)[:101, None, None, None]
    model = GMM(3, "diag").fit(x.flatten(1).double().numpy())
    factors = torch.stack([x[:, 0, 0, column] > 2 for column in range(2)], 1).long()
    inference = point_inference(model, x.double())
    return snapshot(model, inference, factors, ("one", "two"), x[:40].double())


def snapshot_for(choice):
    return vectors() if choice in LINEAR else images()


@cache
def found(choice):
    return build(choice)(snapshot_for(choice))


@every_diagnostic
def test_every_result_says_by_its_shape_where_it_goes(choice):
    assert found(choice)
    for name, value in found(choice).items():
        assert isinstance(name, str)
        assert isinstance(value, torch.Tensor | str | np.ndarray | Embedding | Film), name
        if isinstance(value, Film):
            assert value.frames.dtype == torch.uint8
            assert value.frames.dim() == 4
            assert value.frames.shape[1] == 3
        if not isinstance(value, torch.Tensor):
            continue
        assert value.dim() in (0, 1, 3), name
        assert not value.requires_grad
        if value.dim() == 3:
            assert value.shape[0] == 3, name
            assert value.dtype == torch.uint8 or 0 <= value.min() <= value.max() <= 1, name
        else:
            assert value.isfinite().all(), name


def as_bytes(value):
    if isinstance(value, Embedding):
        return as_bytes(value.codes), value.columns, value.labels
    if isinstance(value, Film):
        return as_bytes(value.frames), value.seconds
    return value if isinstance(value, str) else np.asarray(value).tobytes()


@every_diagnostic
def test_it_says_the_same_again_and_touches_neither_the_snapshot_nor_the_generators(choice):
    before = found(choice)
    snapshot = snapshot_for(choice)
    kept = [
        part.clone()
        for part in (*snapshot.posterior, snapshot.z, snapshot.factors, snapshot.images)
    ]
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    again = pickle.loads(pickle.dumps(build(choice)))(snapshot)
    assert again.keys() == before.keys()
    assert [as_bytes(value) for value in again.values()] == [
        as_bytes(value) for value in before.values()
    ]
    after = (*snapshot.posterior, snapshot.z, snapshot.factors, snapshot.images)
    assert all(torch.equal(one, other) for one, other in zip(kept, after, strict=True))
    assert torch.equal(state[0], torch.get_rng_state())
    assert np.array_equal(state[1], np.random.get_state()[1])  # noqa: NPY002


NEED_POSTERIORS = {
    "decomposition",
    "decomposition_full",
    "estimator_audit",
    "evidence",
    "goodness_of_fit",
    "inference_gap",
    "mig_exact",
    "probabilistic_pca",
    "sigma",
    "water_filling",
}


@every_diagnostic
def test_of_a_mixtures_points_it_gives_finite_numbers_or_is_refused_before_training(choice):
    diagnostic = build(choice)
    if choice in NEED_POSTERIORS:
        own = (
            f"diagnostics holds {choice}, and the run of a mixture, .* gives codes alone: expected"
        )
        with pytest.raises(InputError, match=own):
            check_families({choice: diagnostic}, Codes)
        return
    check_families({choice: diagnostic}, Codes)
    for name, value in diagnostic(points()).items():
        if isinstance(value, torch.Tensor):
            assert value.isfinite().all(), name
