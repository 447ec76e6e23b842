"""Writing Python: the run of a command, by the same code, from objects and names."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from cases import some
from pytorch_lightning import Callback
from resume import differences
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

import jensen
from jensen.api.data import examples
from jensen.base.errors import InputError
from jensen.launch.training import train
from jensen.model.likelihood import Bernoulli
from jensen.objective.beta import Beta

QUIET = (
    *(
        "callbacks=[checkpoint,diagnose]",
        "callbacks.last.seconds=0",
        "callbacks.last.share=1e9",
        "diagnostics=[rate]",
    ),
    *(
        "trainer.accelerator=cpu",
        "trainer.val_check_interval=6",
        "+trainer.enable_progress_bar=false",
    ),
    "trainer.log_every_n_steps=1",
)
SAVED = tuple(word for word in QUIET if "callbacks.last" not in word)
FIT = {"max_steps": 12, "batch_size": 8, "validation": 12, "overrides": QUIET}


@pytest.fixture
def x():
    return (torch.rand(60, 1, 2, 3, generator=torch.Generator().manual_seed(0)) < 0.5).float()


def named(**options):
    return jensen.VAE("mlp", "mlp", latent_dim=2, x_shape=[1, 2, 3], **options)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))

    def forward(self, x):
        return jensen.Gaussian(*self.body(x).chunk(2, -1))


def own():
    torch.manual_seed(3)
    return jensen.VAE(
        Encoder(), nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (1, 2, 3))), latent_dim=2
    )


def test_a_run_by_names_is_the_run_of_the_command(configure, tmp_path, x):
    """Bit for bit: weights, optimiser, logs. The command reads the same tensor as a Dataset of
    one's own.
    """
    run = jensen.fit(named(seed=5), x, seed=5, folder=tmp_path / "python", **FIT)
    words = [
        "data=torch_dataset",
        "model=mlp",
        "latent_dim=2",
        "seed=5",
        "trainer.max_steps=12",
        "data.batch_size=8",
        *QUIET,
    ]
    words += ["data.source._target_=test_api.stored", "data.x_shape=[1,2,3]", "data.validation=12"]
    results = train(configure(*words), tmp_path / "command")
    assert differences(tmp_path / "command", tmp_path / "python") == []
    assert run.results == results
    assert run.folder == tmp_path / "python"


def stored():
    return TensorDataset(
        (torch.rand(60, 1, 2, 3, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    )


def test_what_fit_returns_is_what_load_finds(tmp_path, x):
    model = named()
    untrained = model.encoder.state_dict()["body.1.weight"].clone()
    state = torch.get_rng_state()
    run = jensen.fit(model, x, folder=tmp_path, **FIT)
    assert torch.get_rng_state().equal(state)
    found = jensen.load(tmp_path)
    assert type(found) is type(run)
    assert not found.model.training
    assert run.model is model
    assert not untrained.equal(model.encoder.state_dict()["body.1.weight"])
    assert run.encode(x).mean.equal(found.encode(x).mean)
    assert run.decode(torch.zeros(1, 2)).shape == (1, 1, 2, 3)
    assert run.scores == found.scores
    assert (
        run.scores["rate"]["by_latent"]
        == json.loads((tmp_path / "scores.json").read_text())["diagnostics"]["rate"]["by_latent"]
    )
    assert found.results["val/elbo"] == run.results["val/elbo"] < 0


def test_load_takes_a_run_or_one_of_its_checkpoints_and_says_which(
    tmp_path, x, capsys, monkeypatch
):
    run = jensen.fit(named(), x, folder=tmp_path / "run", **FIT | {"overrides": SAVED})
    folder = run.folder / "checkpoints"
    capsys.readouterr()
    steps = {"last": 12, "last.previous": 6, "best": None}
    for name, step in steps.items():
        saved = torch.load(folder / f"{name}.ckpt", weights_only=True)
        found = jensen.load(folder / f"{name}.ckpt")
        assert (found.folder, found.checkpoint) == (run.folder, name)
        weight = saved["state_dict"]["model.encoder.body.1.weight"]
        assert found.model.encoder.body[1].weight.equal(weight)
        assert saved["global_step"] == step or step is None
        line = f"jensen: loaded {folder / name}.ckpt, of step {saved['global_step']}\n"
        assert capsys.readouterr().out == line
    assert f"{name})" in repr(found)
    assert jensen.load(run.folder, "best").encode(x).mean.equal(found.encode(x).mean)
    monkeypatch.chdir(folder)
    assert jensen.load("last.previous.ckpt").encode(x).mean.shape == (60, 2)
    found = jensen.load(run.folder, "last.previous", data=x, validation=12)
    found.diagnose(["codes"], split="train")
    scores = json.loads((run.folder / "scores.json").read_text())
    assert (scores["checkpoint"], scores["step"]) == ("last.previous", 6)
    for sentence, call in {
        "no checkpoint of a run of jensen: expected RUN/checkpoints/NAME.ckpt": lambda: jensen.load(
            tmp_path / "mine.ckpt"
        ),
        "is a checkpoint and checkpoint is 'best': expected one": lambda: jensen.load(
            folder / "last.ckpt", "best"
        ),
        "run is 3: expected a path": lambda: jensen.load(3),
        "has no .hydra/config.yaml": lambda: jensen.load(tmp_path / "checkpoints" / "last.ckpt"),
    }.items():
        with pytest.raises(InputError, match=sentence):
            call()


def test_diagnostics_are_run_on_a_run_and_kept_in_its_scores(tmp_path, x):
    factors = torch.arange(60) % 4
    run = jensen.fit(named(), (x.numpy(), factors), folder=tmp_path, **FIT)
    found = run.diagnose(["mig_hist20", "codes"], split="train")
    assert 0 <= found["mig_hist20"]["mig_hist20"] <= 1
    assert found["mig_hist20"] == run.scores["mig_hist20"]
    again = jensen.load(tmp_path, data=(x, factors), validation=12).diagnose(
        ["mig_hist20"], split="train"
    )
    assert again["mig_hist20"] == found["mig_hist20"]
    with pytest.raises(
        InputError, match=r"the data of this run was given in Python, numpy\.ndarray"
    ):
        jensen.load(tmp_path).diagnose(["codes"])
    with pytest.raises(InputError, match="diagnostics is 'mig': expected one of"):
        run.diagnose(["mig"])


def test_objects_are_trained_in_place_and_found_again_when_they_are_given(tmp_path, x):
    model = own()
    objective = Beta(2.0)
    run = jensen.fit(model, x, objective, folder=tmp_path, **FIT)
    expected = run.encode(x).mean
    with pytest.raises(
        InputError, match=r"the encoder of this run was given in Python, test_api\.Encoder"
    ):
        jensen.load(tmp_path)
    fresh = own()
    found = jensen.load(tmp_path, model=fresh, objective=Beta(2.0))
    assert found.encode(x).mean.equal(expected)
    assert not fresh.encode(x).mean.equal(expected)  # what is given is not changed
    diagnosed = run.diagnose(["rate"], checkpoint="best")
    assert diagnosed["rate"]["by_latent"]
    assert model.encode(x).mean.equal(expected)
    assert "val/loss" in run.results
    assert run.results["val/loss"] == pytest.approx(
        run.results["val/distortion"] + 2 * run.results["val/rate"], rel=1e-5
    )


class StoppedError(Exception):
    pass


class Stop(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise StoppedError


def test_a_fit_that_was_stopped_goes_on_to_the_bytes_of_one_that_was_not(tmp_path, x):
    jensen.fit(own(), x, folder=tmp_path / "whole", callbacks=[Stop(99)], **FIT)
    with pytest.raises(StoppedError):
        jensen.fit(own(), x, folder=tmp_path / "parts", callbacks=[Stop(8)], **FIT)
    jensen.fit(own(), x, folder=tmp_path / "parts", callbacks=[Stop(99)], **FIT)
    assert differences(tmp_path / "whole", tmp_path / "parts") == []
    fresh = own()
    finished = jensen.fit(
        fresh, x, folder=tmp_path / "parts", callbacks=[Stop(99)], **FIT
    )  # nothing to do, and trained
    assert finished.encode(x).mean.equal(
        jensen.load(tmp_path / "parts", model=own()).encode(x).mean
    )
    with pytest.raises(InputError, match="was trained on other data"):
        jensen.fit(own(), 1 - x, folder=tmp_path / "parts", callbacks=[Stop(99)], **FIT)


@some(
    3,
    "convert",
    [
        lambda x: x,
        lambda x: x.numpy(),
        lambda x: x.double().numpy(),
        lambda x: x.bool(),
        lambda x: x.byte().numpy(),
        TensorDataset,
    ],
    ids=["tensor", "array", "float64", "bool", "zeros and ones", "dataset"],
)
def test_every_kind_of_data_is_the_same_run(tmp_path, x, convert):
    options = FIT | {"max_steps": 2}
    found = jensen.fit(named(), convert(x), folder=tmp_path / "one", **options)
    assert found.results == jensen.fit(named(), x, folder=tmp_path / "two", **options).results


def test_held_out_data_of_their_own_and_a_default_folder_of_a_new_name(
    tmp_path, x, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    options = FIT | {"max_steps": 2, "validation": x[:10]}
    runs = [jensen.fit(named(), x[10:], **options) for _ in range(2)]
    assert len({run.folder for run in runs}) == 2
    assert runs[0].results == runs[1].results
    assert f"training in {runs[0].folder}" in capsys.readouterr().out

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(x[10:])

    assert jensen.fit(named(), Stream(), **options).results["val/elbo"] < 0
    with pytest.raises(
        InputError, match=r"validation is None and .*Stream is a stream: expected other data"
    ):
        jensen.fit(named(), Stream(), **(options | {"validation": None}))


def test_a_share_of_the_examples_is_held_out_as_that_number_of_them_is(tmp_path, x):
    options = {**FIT, "max_steps": 2}
    runs = [
        jensen.fit(named(), x, folder=tmp_path / str(place), **options | {"validation": held_out})
        for place, held_out in enumerate((12, 0.2, np.float32(0.2), np.int64(12)))
    ]
    assert all(run.results == runs[0].results for run in runs)


def test_a_frame_is_its_array_and_what_is_to_be_computed_first_is_refused(tmp_path):
    pandas = pytest.importorskip("pandas")
    sparse = pytest.importorskip("scipy.sparse")
    numbers = np.random.default_rng(0).random((40, 3))
    labels = pandas.Series(range(40), index=range(7, 47))
    found = examples((pandas.DataFrame(numbers, columns=["a", "b", "c"]), labels))
    assert found.stored.equal(torch.tensor(numbers))
    assert found.factors[:, 0].tolist() == [*range(40)]
    model = jensen.VAE("mlp", "mlp", "normal", latent_dim=2, x_shape=[3])
    frame = pandas.DataFrame(numbers)
    options = FIT | {"max_steps": 2}
    run = jensen.fit(model, frame, folder=tmp_path / "frame", **options)
    assert run.encode(frame).mean.equal(run.encode(numbers).mean)
    of_array = jensen.fit(
        jensen.VAE("mlp", "mlp", "normal", latent_dim=2, x_shape=[3]),
        numbers,
        folder=tmp_path / "array",
        **options,
    )
    assert run.results == of_array.results
    for sentence, data in {
        r"^x of data holds 'red' at \[1, 1\] \(column c\)": pandas.DataFrame(
            {"a": [1.0, 2.0], "c": [1.0, "red"]}
        ),
        r"^x of data is torch.int64: .*; convert it$": pandas.DataFrame({"a": [1, 2]}),
        r"^x of data is a csr_array: expected an array of numbers; use toarray": sparse.csr_array(
            numbers
        ),
    }.items():
        with pytest.raises(InputError, match=sentence):
            examples(data)


def test_bad_input_is_one_sentence(tmp_path, x):
    refused = {
        "encoder is 'mlpp': expected one of": lambda: jensen.VAE("mlpp", "mlp", x_shape=[6]),
        "likelihood is 'normall': expected one of": lambda: named(likelihood="normall"),
        "encoder is 'mlp' and x_shape is None": lambda: jensen.VAE("mlp", nn.Identity()),
        "model is a GMM: expected a jensen.VAE": lambda: jensen.fit(jensen.GMM(2), x),
        "objective is 'bta': expected one of": lambda: jensen.fit(
            named(), x, "bta", folder=tmp_path, **FIT
        ),
        "data hold 0.25: use cross_entropy": lambda: jensen.fit(
            named(), x / 4, folder=tmp_path, **FIT
        ),
        r"data have the shape \[60\]": lambda: jensen.fit(
            named(), x[:, 0, 0, 0], folder=tmp_path, **FIT
        ),
        "nothing.like is no key of the configuration": lambda: jensen.fit(
            named(), x, overrides=["nothing.like=1"], folder=tmp_path
        ),
        "expected grey|expected floating": lambda: jensen.fit(
            named(), x.long(), folder=tmp_path, **FIT
        ),
        r"factors have the shape \[7\]": lambda: jensen.fit(
            named(), (x, np.zeros(7, int)), folder=tmp_path, **FIT
        ),
    }
    refused |= {
        rf"^validation is {said}: expected a number of examples, a share of them": lambda part=part: (
            jensen.fit(named(), x, folder=tmp_path, **FIT | {"validation": part})
        )
        for said, part in {"1.5": 1.5, "-0.1": -0.1, "0.0": 0.0, "nan": np.nan}.items()
    }
    refused |= {
        rf"^data is a {said}": lambda data=data: jensen.fit(named(), data, folder=tmp_path, **FIT)
        for said, data in {
            "tuple of 3: .* give a data set of items as a list": (x, x, x),
            "tuple of 1: expected x, or": (x,),
            "NoneType: expected x or": None,
            "float: expected x or": 0.5,
            "str: expected x or": "mnist",
            "dict: expected x or": {"x": x},
        }.items()
    }
    refused["^validation is a str: expected x or"] = lambda: jensen.fit(
        named(), x, folder=tmp_path, **FIT | {"validation": "all"}
    )
    for sentence, call in refused.items():
        with pytest.raises(InputError, match=sentence):
            call()


def test_a_part_may_be_named_beside_an_object(x):
    model = jensen.VAE(
        Encoder(), "mlp", likelihood=Bernoulli(), prior="mixture", latent_dim=2, x_shape=[1, 2, 3]
    )
    assert model.decode(model.encode(x).mean).shape == x.shape


def test_a_run_in_float64_takes_float32(tmp_path, x):
    options = FIT | {"overrides": (*QUIET, "trainer.precision=64-true"), "max_steps": 2}
    run = jensen.fit(named(), x, folder=tmp_path, **options)
    assert run.encode(x).mean.dtype == torch.float64
    assert run.encode(x).mean.equal(jensen.load(tmp_path).encode(x).mean)


def test_the_weights_of_named_parts_are_those_of_a_seed():
    assert named(seed=1).encoder.body[1].weight.equal(named(seed=1).encoder.body[1].weight)
    assert not named(seed=1).encoder.body[1].weight.equal(named(seed=2).encoder.body[1].weight)


def test_the_public_names_are_there_and_importing_jensen_loads_no_torch():
    """In a process of its own, in which nothing is imported yet."""
    script = (
        "import sys, jensen\n"
        "assert {'GMM', 'fit', 'kl', 'scores', 'data'} <= set(dir(jensen))\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert jensen.data.sprites.render
    assert jensen.scores.mig_hist20.__name__ == "mig_hist20"
    for name in jensen.PLACES:
        assert getattr(jensen, name).__doc__, name
    assert not hasattr(jensen, "nothing")
    assert not hasattr(jensen.data, "nothing")


def test_a_run_encodes_what_it_was_trained_on_and_nothing_else(tmp_path, x):
    """By modules that say no shape of their own, so that rows of pixels would do."""
    run = jensen.fit(own(), x, folder=tmp_path, **FIT | {"max_steps": 2})
    codes = run.encode(x).mean.numpy()  # no graph is left
    assert run.decode(codes).numpy().shape == (60, 1, 2, 3)
    loaded = jensen.load(tmp_path, model=own())
    for same in (x.double(), x.half(), x.bool(), x.byte(), 255 * x.byte(), x.numpy(), x.tolist()):
        for each in (run, loaded):
            assert (each.encode(same).mean.numpy() == codes).all()
    for sentence, other in {
        r"model.x_shape is \[1, 2, 3\] but x has the shape \[60, 6\]: .* reshape it": x.flatten(1),
        r"but x has the shape \[60, 2, 3, 1\]: .*by permute": x.permute(0, 2, 3, 1).numpy(),
        "takes x that is 0 or 1 but the data hold 0.25": x / 4,
        "takes x that is 0 or 1 but the data hold 0.498": 127 * x.byte(),
        "x is torch.int64: expected floating": x.long(),
        "x is a TensorDataset: expected a tensor or an array": TensorDataset(x),
        "x is a str: expected a tensor or an array": "x",
        "x has 1 masked values": np.ma.masked_array(x, mask=np.arange(360).reshape(x.shape) == 7),
    }.items():
        for each in (run, loaded):
            with pytest.raises(InputError, match=sentence):
                each.encode(other)


def test_bytes_are_read_as_the_fit_read_them_or_not_at_all(tmp_path, x):
    """A batch of grey levels may happen to hold nothing above 1."""
    greys = (20 * torch.rand(60, 1, 2, 3, generator=torch.Generator().manual_seed(1))).byte()
    dark = greys.clamp(max=1)
    runs = {
        what: jensen.fit(
            named(likelihood="normal"), data, folder=tmp_path / what, **FIT | {"max_steps": 2}
        )
        for what, data in {
            "greys": greys,
            "bits": x.byte(),
        }.items()
    }
    for what, divisor in {"greys": 255, "bits": 1}.items():
        run = runs[what]
        assert run.encode(dark).mean.equal(run.encode(dark.float() / divisor).mean)
        with pytest.raises(InputError, match=r"x is bytes and none is above 1: .* x.float"):
            jensen.load(run.folder).encode(dark)
    again = jensen.load(tmp_path / "greys")
    assert again.encode(greys).mean.equal(runs["greys"].encode(greys.float() / 255).mean)


@pytest.mark.parametrize(("here", "there"), [(0, 1), (1, 0), (1, 2)])
def test_validation_has_the_factors_of_the_data(x, here, there, tmp_path):
    def of(count):
        return (x, torch.zeros(len(x), count, dtype=torch.int64)) if count else x

    sentence = f"validation has {there} factors an example and data {here}: expected as many"
    with pytest.raises(InputError, match=sentence):
        jensen.fit(named(), of(here), folder=tmp_path, **FIT | {"validation": of(there)})


@pytest.mark.parametrize("values", [[[1.0, 2.0]], [float("nan")]])
def test_a_traversal_takes_finite_numbers_in_a_row(x, values):
    with pytest.raises(InputError, match="expected finite numbers in one row"):
        named().traverse(x, latent=1, values=values)
