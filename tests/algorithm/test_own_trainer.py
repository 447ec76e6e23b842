"""`Gradient` in a Lightning user's own Trainer, with his own loaders or DataModule."""

import math

import pytest
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import distributions, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import jensen.algorithm
from jensen.algorithm import EM, Gradient
from jensen.algorithm.batches import observed
from jensen.base.batch import Batch
from jensen.base.errors import InputError
from jensen.base.random import key, normal
from jensen.callbacks.diagnose import Diagnose
from jensen.data.examples import Examples, identity
from jensen.data.module import DataModule
from jensen.family.gaussian import Gaussian
from jensen.model.gmm import GMM
from jensen.model.likelihood import Bernoulli, Normal
from jensen.model.linear import LinearDecoder, LinearEncoder
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE
from jensen.objective.beta import Beta
from jensen.objective.decomposed import Decomposed
from jensen.objective.importance import Importance

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # Lightning's, of loaders that shuffle, have no workers or do not validate

COUNT = 22
DIM = 4
LATENTS = 2
SIZE = 6
X = torch.randn(COUNT, DIM, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(COUNT) % 3


def algorithm(objective=None, likelihood=None, **options):
    torch.manual_seed(0)
    model = VAE(
        LinearEncoder([DIM], LATENTS),
        LinearDecoder([DIM], LATENTS),
        likelihood or Normal(),
        StandardNormal(),
        LATENTS,
    )
    return Gradient(model, objective or Beta(4.0), **options)


def trainer(folder, **options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        **quiet | {"max_steps": 3, "log_every_n_steps": 1} | options,
    )


class Dicts(Dataset):
    """Items as dicts, in which the place of each is `row`."""

    def __len__(self):
        return COUNT

    def __getitem__(self, row):
        return {"x": X[row], "factors": LABELS[row], "row": row}


class Tensors(Dicts):
    def __getitem__(self, row):
        return X[row]


KINDS = {
    "tensor": Tensors(),
    "x alone": TensorDataset(X),
    "pair": TensorDataset(X, LABELS),
    "dict": Dicts(),
}


def loader(kind, **options):
    return DataLoader(KINDS[kind], SIZE, **options)


def held_out(algorithm, rows):
    """Mean distortion and rate of the examples, each at the noise of its place in the data: the
    networks and the noise are asked, the rest is torch's.
    """
    model = algorithm.model
    noise = normal(key(algorithm.seed, "evaluation"), rows, (LATENTS,))
    with torch.no_grad():
        mean, log_var = model.encoder(X[rows])
        output = model.decoder(mean + log_var.exp().sqrt() * noise)
        distortion = -distributions.Normal(output, 1.0).log_prob(X[rows]).sum(1)
        posterior = distributions.Normal(mean, log_var.exp().sqrt())
        rate = distributions.kl_divergence(posterior, distributions.Normal(0.0, 1.0)).sum(1)
    return distortion.mean().item(), rate.mean().item()


@pytest.mark.parametrize("kind", KINDS)
def test_any_loader_is_trained_on_and_validated(tmp_path, kind):
    own = algorithm()
    before = [parameter.clone() for parameter in own.parameters()]
    given = trainer(tmp_path, num_sanity_val_steps=0, val_check_interval=3)
    given.fit(own, loader(kind, shuffle=True), loader(kind))
    assert given.global_step == 3
    assert not any(torch.equal(old, new) for old, new in zip(before, own.parameters(), strict=True))
    found = {name: value.item() for name, value in given.callback_metrics.items()}
    distortion, rate = held_out(own, torch.arange(COUNT))
    assert found["val/distortion"] == pytest.approx(distortion, rel=1e-5)
    assert found["val/rate"] == pytest.approx(rate, rel=1e-5)
    assert found["val/loss"] == pytest.approx(distortion + 4 * rate, rel=1e-5)
    assert found["val/elbo"] == pytest.approx(-distortion - rate, rel=1e-5)


def test_held_out_numbers_do_not_depend_on_the_size_of_a_batch(tmp_path):
    found = []
    for size in (SIZE, COUNT):
        given = trainer(tmp_path)
        given.validate(algorithm(), DataLoader(Tensors(), size), verbose=False)
        found.append(given.callback_metrics["val/loss"].item())
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_noise_follows_an_example_that_says_its_row(tmp_path):
    """A step on the examples in another order is the same step, where the batch says which they
    are.
    """
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    weights = {}
    for kind in ("dict", "tensor"):
        for name, rows in (("here", torch.arange(COUNT)), ("there", order)):
            own = algorithm()
            batches = DataLoader(torch.utils.data.Subset(KINDS[kind], rows.tolist()), COUNT)
            trainer(tmp_path, max_steps=1).fit(own, batches)
            weights[kind, name] = torch.cat(
                [parameter.detach().flatten() for parameter in own.parameters()]
            )
    torch.testing.assert_close(weights["dict", "here"], weights["dict", "there"], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        weights["dict", "here"], weights["tensor", "here"], rtol=0, atol=1e-5
    )
    assert not torch.allclose(
        weights["tensor", "here"], weights["tensor", "there"], rtol=0, atol=1e-5
    )


def test_no_two_examples_of_a_step_share_their_noise():
    batches = [
        observed(X[:size], number << 32, rank, 2)
        for number, size in ((0, 6), (1, 4))
        for rank in (0, 1)
    ]
    rows = torch.cat([batch.row for batch in batches])
    assert len(rows.unique()) == len(rows) == 20
    assert sorted(rows[:12].tolist()) == list(range(12))  # as a DistributedSampler deals them out


class Own(LightningDataModule):
    """A user's DataModule, which moves its batches on by a hook of its own."""

    def train_dataloader(self):
        return DataLoader(TensorDataset(X, LABELS), SIZE, shuffle=True)

    def val_dataloader(self):
        return DataLoader(TensorDataset(X, LABELS), SIZE)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] + 1, batch[1]


def test_a_datamodule_of_ones_own(tmp_path):
    own = algorithm(Importance(3), seed=5)
    given = trainer(tmp_path, val_check_interval=2)
    given.fit(own, Own())
    assert given.global_step == 3
    assert math.isfinite(given.callback_metrics["val/loss"])


def test_it_counts_validations_in_batches_as_its_trainer_does(tmp_path):
    """jensen's own runs count steps; a user's Trainer keeps Lightning's meaning."""
    validated = []
    own = algorithm()
    own.on_validation_end = lambda: validated.append(own.global_step)
    options = {
        "accumulate_grad_batches": 2,
        "val_check_interval": 4,
        "check_val_every_n_epoch": None,
    }
    trainer(tmp_path, max_steps=4, num_sanity_val_steps=0, **options).fit(
        own, loader("pair"), loader("pair")
    )
    assert validated == [2, 4]


def test_the_objective_that_needs_the_number_of_examples_asks_for_it(tmp_path):
    with pytest.raises(
        InputError,
        match=r"objective is Decomposed and its dataset_size is 0: .*set objective\.dataset_size",
    ):
        trainer(tmp_path).fit(algorithm(Decomposed(tc=4.0)), loader("pair"))
    objective = Decomposed(tc=4.0)
    objective.dataset_size = COUNT
    given = trainer(tmp_path)
    given.fit(algorithm(objective), loader("pair"))
    assert given.global_step == 3


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        (
            (X, LABELS, LABELS),
            "a batch is a tuple of Tensor, Tensor, Tensor: expected a tensor x, a pair",
        ),
        ({"image": X}, "a batch is a dict with image: expected a tensor x"),
        ("text", "a batch is a str: expected a tensor x"),
        (
            (X, X),
            r"factors of a batch of 22 examples is torch.float32 of shape \[22, 4\]: expected"
            r" integers \(B,\) or",
        ),
        ((X, LABELS[:3]), r"factors of a batch of 22 examples is torch.int64 of shape \[3\]"),
        ((X, ["a"]), "factors of a batch of 22 examples is a list: expected integers"),
        (
            {"x": X, "row": LABELS[:, None]},
            r"row of a batch of 22 examples is torch.int64 of shape \[22, 1\]: expected int",
        ),
    ],
)
def test_a_batch_that_could_be_misread_is_refused(batch, sentence):
    with pytest.raises(InputError, match=sentence):
        observed(batch, 0, 0, 1)


def test_a_batch_of_ours_is_left_as_it_is():
    batch = Batch(X, LABELS[:, None], LABELS)
    assert observed(batch, 7, 0, 1) is batch
    assert observed([X, LABELS], 0, 0, 1).factors.tolist() == LABELS[:, None].tolist()


@pytest.mark.parametrize(
    ("given", "batch", "sentence"),
    [
        (
            {"likelihood": Bernoulli()},
            X,
            "model/likelihood=bernoulli takes x that is 0 or 1 but the data hold",
        ),
        ({}, X[:, :3], r"model\.encoder\.x_shape is \[4\] but examples have shape \[3\]"),
    ],
)
@pytest.mark.parametrize("call", ["fit", "validate"])
def test_data_that_do_not_fit_are_refused_at_their_first_batch(
    tmp_path, given, batch, sentence, call
):
    with pytest.raises(InputError, match=sentence):
        getattr(trainer(tmp_path), call)(algorithm(**given), DataLoader(TensorDataset(batch), SIZE))


def test_a_value_that_does_not_fit_is_refused_in_a_later_batch(tmp_path):
    x = (X > 0).float()
    x[13, 1] = 0.5
    with pytest.raises(InputError, match=r"the data hold 0\.5: use cross_entropy"):
        trainer(tmp_path).fit(algorithm(likelihood=Bernoulli()), DataLoader(TensorDataset(x), SIZE))


def test_a_part_that_its_owner_keeps_in_evaluation_mode_stays_there(tmp_path):
    own = algorithm()
    own.model.encoder.eval()
    modes = []
    own.on_train_batch_end = lambda *_: modes.append(
        (own.model.encoder.training, own.model.decoder.training)
    )
    trainer(tmp_path).fit(own, loader("tensor"))
    assert modes == [(False, True)] * 3


def test_an_epoch_that_ends_amid_accumulated_batches_ends_what_the_prior_learns_of(tmp_path):
    """Of four batches, three at a time."""
    sizes = []

    class Counts(StandardNormal):
        def update(self, posterior, step):
            sizes.append(len(posterior.mean))

    own = algorithm()
    own.model.prior = Counts()
    trainer(tmp_path, max_steps=4, accumulate_grad_batches=3).fit(own, loader("tensor"))
    assert sizes == [3 * SIZE, COUNT - 3 * SIZE] * 2


@pytest.mark.filterwarnings("error:.*in eval mode")
def test_a_model_that_a_fit_left_in_evaluation_mode_is_trained_out_of_it(tmp_path):
    own = algorithm()
    own.model.eval()
    modes = []
    own.on_train_batch_end = lambda *_: modes.append({each.training for each in own.modules()})
    trainer(tmp_path).fit(own, loader("tensor"))
    assert modes == [{True}] * 3


class Breaking(nn.Module):
    def forward(self, x):
        return Gaussian(
            torch.full((len(x), LATENTS), torch.nan) * x[:, :1], torch.zeros(len(x), LATENTS)
        )


def test_a_loss_that_is_not_finite_ends_the_run_though_its_rows_are_unknown(tmp_path):
    own = algorithm()
    own.model.encoder = Breaking()
    folder = tmp_path / "new"
    with pytest.raises(
        InputError,
        match=r"training stopped at step 0, where loss .* names its step, and the last checkpoint",
    ):
        trainer(folder).fit(own, loader("pair"))
    assert '"rows": null' in (folder / "non_finite.json").read_text()


def test_em_asks_for_our_data(tmp_path):
    with pytest.raises(
        InputError,
        match=r"algorithm=em with loaders of your own: expected a jensen\.data\.module\.DataModule",
    ):
        trainer(tmp_path).fit(EM(GMM(2)), loader("tensor"))


def test_diagnostics_ask_for_our_data(tmp_path):
    with pytest.raises(
        InputError,
        match=r"the callback Diagnose has no jensen\.data\.module\.DataModule: expected one",
    ):
        trainer(tmp_path, callbacks=[Diagnose({})]).fit(algorithm(), loader("pair"), loader("pair"))


def test_our_data_in_a_trainer_of_ones_own(tmp_path):
    data = DataModule(lambda: Examples(X, identity), (DIM,), SIZE, seed=0, validation=6)
    own = algorithm(Decomposed(tc=4.0))
    given = trainer(tmp_path, max_epochs=2, max_steps=-1)
    given.fit(own, data)
    assert own.objective.dataset_size == COUNT - 6
    assert math.isfinite(given.callback_metrics["val/elbo"])


def test_the_algorithms_are_public_names():
    assert jensen.algorithm.Gradient is Gradient
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = jensen.algorithm.Nothing
