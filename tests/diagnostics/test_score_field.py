"""The learned scores against those of the mixture of posteriors."""

import pytest
import torch
from snapshots import vector_snapshot

from jensen.base.errors import InputError
from jensen.diagnostics.score_field import score_field
from jensen.family.mixture import aggregate
from jensen.model.diffusion import Diffusion, exact


def two_latents():
    snapshot = vector_snapshot()
    return snapshot._replace(
        posterior=type(snapshot.posterior)(*(part[:, :2] for part in snapshot.posterior)),
        z=snapshot.z[:, :2],
    )


def test_of_the_exact_denoiser_nothing_is_left_and_of_another_what_it_misses():
    snapshot = two_latents()
    truth = exact(aggregate(snapshot.posterior))
    ends = torch.tensor([-10.0, 10.0])
    best = score_field(snapshot._replace(prior=Diffusion(truth, ends, 2)))
    off = score_field(snapshot._replace(prior=Diffusion(lambda z, at: truth(z, at) + 0.1, ends, 2)))
    for level in range(3):
        assert best[f"excess_{level}"] < 1e-10
        assert off[f"excess_{level}"].item() == pytest.approx(0.02, abs=1e-4)
        assert 0 < best[f"unexplained_{level}"] < 2.5
        assert best[f"gamma_{level}"].shape[0] == 3


def test_another_prior_is_refused():
    with pytest.raises(InputError, match="expected model/prior=diffusion"):
        score_field(two_latents())
