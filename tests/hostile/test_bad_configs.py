"""Configurations that no run can have: each ends the command with one sentence, before anything is
trained or lost.
"""

from pathlib import Path

import pytest
from cases import some
from commands import contents, run_here, sentence
from tiny import TINY

from jensen.base.errors import InputError
from jensen.launch.training import train
from jensen.train import main

LIGHTNING = "pytorch_lightning.callbacks"
QUICK = (*TINY, "diagnostics=[]", "trainer.max_steps=5", "trainer.accelerator=cpu")

SENTENCES = {
    "seed=x": "seed is 'x': expected an integer of at least 0",
    "seed=-1": "seed is -1: expected an integer of at least 0",
    "seed=1.5": "seed is 1.5: expected an integer",
    "seed=null": "seed is None: expected an integer",
    "seed=4294967296": "seed is 4294967296: expected an integer below 2^32",
    "latent_dim=many": "model.encoder.latent_dim is 'many': expected an integer of at least 1",
    "latent_dim=null": "model.encoder.latent_dim is None: expected an integer of at least 1",
    "latent_dim=[1,2]": "model.encoder.latent_dim is [1, 2]: expected an integer of at least 1",
    "latent_dim=${latent_dim}": "latent_dim cannot be resolved (Recursive interpolation detected): expected",
    "latent_dim=${seed} seed=${latent_dim}": "cannot be resolved (Recursive interpolation detected): expected",
    "latent_dim=${nowhere}": "latent_dim cannot be resolved (Interpolation key 'nowhere' not found): expected",
    "latent_dim=${nowhere:1}": "latent_dim cannot be resolved (Unsupported interpolation type nowhere): expected",
    "objective.beta=inf": "objective.beta is inf: expected a number of at least 0",
    "objective.beta=null": "objective.beta is None: expected a number of at least 0",
    "objective.beta=[1]": "objective.beta is [1]: expected a number of at least 0",
    "objective.beta={}": "objective.beta is {}: expected a number of at least 0",
    "objective.beta=": "objective.beta is '': expected a number of at least 0",
    "objective=decomposed objective.tc=x": "objective.tc is 'x': expected a number of at least 0",
    "objective=importance objective.samples=0": "objective.samples is 0: expected an integer of at least 1",
    "model/posterior=flow model/prior=mixture model.prior.warmup=1": "needs Gaussian marginals and model/posterior=flow gives",
    "model/prior=diffusion model.prior.train=after": "model.prior.train is after and path is null: expected the folder of the run",
    "model/prior=flow model.prior.path=here": "model.prior.path is 'here' and train is joint: expected train=after",
    "model/posterior=flow model/prior=vamp": "model/prior=vamp needs a diagonal Gaussian and model/posterior=flow gives",
    "model/posterior=flow objective=dip": "objective=dip needs a diagonal Gaussian and model/posterior=flow gives",
    "model.posterior=flow": "model.posterior is a group of choices: expected it with a slash; write model/posterior=flow",
    "model=multimodal model/posterior=flow data=cues": "model/posterior",
    "objective=renyi model/prior=diffusion": "objective is Renyi and model.prior a DiffusionPrior",
    "objective=importance model/prior=diffusion": "objective is Importance and model.prior a DiffusionPrior",
    "model/prior=diffusion model.prior.gamma_min=2 model.prior.gamma_max=2": "gamma_max is 2: expected more than",
    "model/prior=diffusion model.prior.gamma=cosine": "model.prior.gamma is 'cosine': expected one of",
    "model/likelihood=pixelcnn data=chain model=mlp": "model/likelihood=pixelcnn takes images, and data.x_shape is [16]",
    "model/posterior=flow model/prior=factorised model.prior.warmup=1": "needs Gaussian marginals and model/posterior=flow gives",
    "model/posterior=flow objective=beta_tcvae": "model/posterior=flow gives a FlowedGaussian",
    "diagnostics=[samples] diagnostics.samples.temperature=0": "temperature is 0: expected more than 0",
    "diagnostics=[samples] diagnostics.samples.top_p=1.5": "top_p is 1.5: expected a probability above 0 and at most 1",
    "diagnostics=[samples] diagnostics.samples.top_p=0": "top_p is 0: expected a probability above 0",
    "diagnostics=[samples] diagnostics.samples.top_k=3": "top_k is 3: expected at most 2, the symbols there are",
    "diagnostics=[samples] diagnostics.samples.top_k=1 model/likelihood=normal": "top_k is 1: expected none, since this",
    "objective=capacity objective.capacity=-1": "objective.capacity is -1: expected a number of at least 0",
    "+schedule@objective.beta=linear objective.beta.steps=-6": "objective.beta.steps is -6: expected an integer of at least 1",
    "+schedule@objective.beta=linear objective.beta.steps=x": "objective.beta.steps is 'x': expected an integer of at least 1",
    "algorithm.lr_scale=x": "algorithm.lr_scale is 'x': expected a number of at least 0",
    "algorithm.non_finite=maybe": "algorithm.non_finite is 'maybe': expected one of stop, skip",
    "optimizer.lr=-1": "optimizer.lr is -1: expected a number of at least 0",
    "optimizer.lr=nan": "optimizer.lr is nan: expected a number",
    "optimizer.lr=x": "optimizer.lr is 'x': expected a number",
    "optimizer.lr=null": "optimizer.lr is None: expected a number",
    "optimizer._target_=torch.optim.Adamm": "optimizer._target_ is torch.optim.Adamm, which cannot be found (",
    "optimizer._target_=nowhere.Adam": "optimizer._target_ is nowhere.Adam, which cannot be found (No module named 'nowhere')",
    "model._target_=jensen.nothing": "model._target_ is jensen.nothing, which cannot be found (",
    "callbacks.best._target_=jensen.callbacks.best.Worst": "callbacks.best._target_ is jensen.callbacks.best.Worst, which",
    "logger.tensorboard.name=text": "logger.tensorboard.name is 'text': expected '', since only the event files",
    "logger.tensorboard.version=3": "logger.tensorboard.version is 3: expected ''",
    "logger.tensorboard.version=null": "logger.tensorboard.version is None: expected ''",
    "+logger.tensorboard.sub_dir=x": "logger.tensorboard.sub_dir is 'x': expected None",
    "logger.tensorboard.filename_suffix=.mine": "logger.tensorboard.filename_suffix is '.mine': expected '.train'",
    "+logger.more=${logger.tensorboard}": "logger.tensorboard and logger.more both write",
    "logger=csv +logger.more._target_=jensen.callbacks.CSV": "metrics.csv: expected one of them; leave the other out",
    "+logger.more=3": "logger.more is 3: expected loggers by name, such as logger=[tensorboard,csv]",
    "+logger.more._target_=jensen.callbacks.Last": "logger.more is jensen.callbacks.Last, which makes no logger",
    f"+callbacks.x._target_={LIGHTNING}.StochasticWeightAveraging +callbacks.x.swa_lrs=0.1": "changes the weights after the last",
    f"+callbacks.x._target_={LIGHTNING}.EMAWeightAveraging": "callbacks.x is a EMAWeightAveraging, which averages the objective",
    f"+callbacks.x._target_={LIGHTNING}.LearningRateFinder": "callbacks.x is a LearningRateFinder, which trains to find a rate",
    f"+callbacks.x._target_={LIGHTNING}.ModelCheckpoint +callbacks.x.save_last=true": "callbacks.x writes last.ckpt or best.ckpt",
    "+callbacks.x._target_=jensen.callbacks.Last": "callbacks.last and callbacks.x are both Last: expected one",
    "+callbacks=[ema,swa]": "callbacks.ema and callbacks.swa are both Average: expected one",
    "+callbacks=ema +callbacks=swa": "callbacks.ema and callbacks.swa are both Average: expected one",
    "+callbacks=early_stopping callbacks.early_stopping.monitor=elbo": "monitor is 'elbo': expected a number of this run",
    "+callbacks=ema callbacks.ema.decay=2": "callbacks.ema.decay is 2: expected a number in [0, 1]",
    "+callbacks=ema callbacks.ema.every=0": "callbacks.ema.every is 0: expected an integer of at least 1",
    "optimizer=sgd optimizer.momentum=-1": "optimizer.momentum is -1: expected a number of at least 0",
    "optimizer=adamw optimizer.weight_decay=x": "optimizer.weight_decay is 'x': expected a number",
    "+trainer.max_time.second=2": "trainer cannot be made ('second' is an invalid keyword argument",
    "callbacks=[checkpoint] diagnostics=[rate] maximise=rate/active_units": "but callbacks has no diagnose to run it: expected",
    "maximise=val/elbo +trainer.limit_val_batches=0": "maximise is val/elbo but trainer.limit_val_batches is 0: expected",
    "model.encoder.hidden=16": "model.encoder.hidden is 16: expected a list",
    "model.decoder.x_shape=[1,32,32]": "model.decoder.x_shape is [1, 32, 32] but examples have shape [1, 64, 64]: expected one",
    "model.latent_dim=1": "model.encoder.latent_dim is 3 but model.latent_dim is 1: expected one number of",
    "algorithm=em": "algorithm.model is a VAE: expected a mixture",
    "model/likelihood=normal model.likelihood.variance=0": "model.likelihood.variance is 0: expected a number of at least",
    "model/prior=mixture model.prior.components=0": "model.prior.components is 0: expected an integer of at least 1",
    "model/prior=mixture": "model.prior.warmup is 200 but training ends at step 5: lower it or raise trainer.max_steps",
    "data.batch_size=2.5": "data.batch_size is 2.5: expected an integer of at least 1",
    "data.batch_size=nan": "data.batch_size is nan: expected an integer of at least 1",
    "data.validation=-1": "data.validation is -1: expected auto or an integer of at least 0",
    "data.size=nan": "data.size is nan: expected an integer of at least 1",
    "data.factors=7": "data.factors is 7: expected a list",
    "data.workers=1.5": "data.workers is 1.5: expected an integer of at least 0",
    "data.device=cudaa": "data.device is 'cudaa'",
    "data.device=meta:7 data.workers=1": "workers is 1 and device is meta:7: expected workers=0, or device=cpu",
    "data.shuffle=perhaps": "data.shuffle is 'perhaps': expected true or false",
    "data.shuffle=false": "data.shuffle is false: expected true",
    "data.x_shape=64": "data.x_shape is 64: expected a list",
    "data.x_shape=[1,-64,64]": "data.x_shape is -64: expected an integer of at least 1",
    "data.x_shape=[]": "data.x_shape is [] but the first train example has shape [1, 64, 64]",
    "data.splits=[test]": "these data have no train split",
    "data.transform=nonsense": "data.transform is 'nonsense': expected null",
    "+data.nonsense=1": "got an unexpected keyword argument 'nonsense'",
    "trainer.precision=nonsense": "precision",
    "trainer.precision=16-true": "precision is",
    "trainer.devices=0": "trainer cannot be made (`Trainer(devices=0)` value is not a valid input using cpu accelerator.)",
    "trainer.devices=two": "trainer cannot be made (`devices` selected with `CPUAccelerator` should be an int > 0.): expected",
    "trainer.accelerator=quantum": "trainer cannot be made (You selected an invalid accelerator name",
    "trainer.strategy=nonsense": "trainer cannot be made (You selected an invalid strategy name",
    "trainer.strategy=fsdp": "trainer cannot be made (The strategy `fsdp` requires a GPU accelerator",
    "trainer.max_steps=0": "trainer.max_steps is 0: expected an integer of at least 1",
    "trainer.max_steps=-5": "trainer.max_steps is -5: expected an integer of at least 1",
    "trainer.max_steps=many": "trainer.max_steps is 'many': expected an integer of at least 1",
    "trainer.max_steps=1.5": "trainer.max_steps is 1.5: expected an integer of at least 1",
    "trainer.max_steps=null": "trainer.max_steps is None: expected an integer of at least 1",
    "trainer.max_steps=-1": "trainer.max_steps and trainer.max_epochs are -1: expected one that ends the training",
    "trainer.val_check_interval=0": "trainer.val_check_interval is 0: expected an integer of at least 1",
    "trainer.val_check_interval=0.5": "trainer.val_check_interval is 0.5: expected an integer of at least 1",
    "trainer.log_every_n_steps=0": "trainer.log_every_n_steps is 0: expected an integer of at least 1",
    "trainer.log_every_n_steps=-1": "trainer.log_every_n_steps is -1: expected an integer of at least 1",
    "trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches is 0: expected an integer of at least 1",
    "trainer.accumulate_grad_batches=100": "data.batch_size is 12 times trainer.accumulate_grad_batches 100: expected",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val is -1: expected a number of at least 0",
    "trainer.num_nodes=0": "trainer.num_nodes is 0: expected an integer of at least 1",
    "trainer.num_nodes=2": "trainer.num_nodes is 2 but nothing says which of them this is: expected srun or torchrun",
    "+trainer.nonsense=1": "trainer cannot be made (Trainer.__init__() got an unexpected keyword argument 'nonsense')",
    "maximise=nope": "maximise is 'nope': expected one of val, test",
    "maximise=7": "maximise is '7': expected one of val, test",
    "callbacks.last.seconds=-1": "callbacks.last.seconds is -1: expected a number of at least 0",
    "callbacks.best.mode=up": "callbacks.best.mode is 'up': expected one of",
}
VECTORS = {
    "data=blobs model=gmm": "model is a GMM: expected a VAE",
    "data=blobs model=linear data.size=0": "data.size is 0: expected an integer of at least 1",
    "data=blobs model=mlp": "model/likelihood=bernoulli takes x",
    "data=gaussian model=linear data.variances=3": "data.variances is 3: expected a list",
    "data=gaussian model=linear data.variances=[1,-1]": "data.variances is -1: expected a number of at least",
    "data=gaussian model=linear data.variances=[]": "data.variances is empty: expected one positive number",
    "data=folder model=mlp": "data.root is not set: expected a value",
    "data=folder model=mlp data.root=7": "7 is not a folder: expected one of images",
    "data=folder model=mlp data.root=null": "data.root is None: expected a path",
    "data=codes model=mlp": "data.path is not set: expected a value",
    "data=mnist model=multimodal": "model.modalities is that of data.modalities, and there is none: expected a choice",
    "data=incomplete data@data.of=sprites": "data.modalities is that of data.of.modalities, and there is none: expected a choice"
    " of data that has it; take data@data.of=cues or flashes or phonemes or mnist_label or sprites_caption",
    "data=codes model=mlp data.path=null": "data.path is None: expected a path",
    "data=codes model=mlp data.path=/nowhere.npz": "/nowhere.npz cannot be read (No such file or directory): expected",
    "data=dsprites model=mlp data.path=null": "data.path is None: expected a path",
    "data=dsprites model=mlp data.path=/": "/ cannot be read (Is a directory): expected the npz file of dSprites",
    "data=mnist model=mlp data.root=null": "data.root is None: expected a path",
    "data=mnist model=mlp data.download=perhaps": "data.download is 'perhaps': expected true or false",
}
LIGHTNINGS_OWN = {
    "experiment=gmm trainer.accumulate_grad_batches=4": "accumulation is not supported for manual optimization",
    "experiment=gmm trainer.gradient_clip_val=1.0": "gradient clipping is not supported for manual optimization",
    "+trainer.limit_val_batches=0.01": "You requested to check 0.01 of the `val_dataloader`",
}


def refused(capsys, folder, words, others):
    """What the command says; what lay in the run's folder is there still, and no checkpoint is."""
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    keys = {word.split("=")[0].lstrip("+") for word in words}
    chosen = [word for word in others if word.split("=")[0] not in keys]
    ended = run_here(capsys, main, *words, *chosen, f"hydra.run.dir={folder}")
    assert ended.status == 1
    assert 'File "' not in ended.err
    assert contents(folder)["notes.txt"] == b"mine"
    assert not list(folder.rglob("*.ckpt*"))
    assert not (folder / "finished.json").exists()
    return ended.err


@some(45, "overrides", SENTENCES)
def test_a_wrong_value_is_one_sentence(capsys, tmp_path, overrides):
    assert SENTENCES[overrides] in sentence(
        refused(capsys, tmp_path / "run", overrides.split(), QUICK)
    )


@some(6, "overrides", VECTORS)
def test_wrong_data_are_one_sentence(capsys, tmp_path, overrides):
    others = [word for word in QUICK if not word.startswith(("data.", "model"))]
    assert VECTORS[overrides] in sentence(
        refused(capsys, tmp_path / "run", overrides.split(), others)
    )


@pytest.mark.parametrize("overrides", LIGHTNINGS_OWN)
def test_what_lightning_refuses_within_fit_is_one_sentence(capsys, tmp_path, overrides):
    gmm = (
        "callbacks=[checkpoint]",
        "trainer.accelerator=cpu",
        "trainer.max_steps=5",
        "data.size=100",
        "data.validation=20",
    )
    others = gmm if "gmm" in overrides else (*QUICK, "callbacks=[checkpoint]")
    said = sentence(refused(capsys, tmp_path / "run", overrides.split(), others))
    assert said.startswith("the trainer refuses this (")
    assert LIGHTNINGS_OWN[overrides] in said
    assert said.endswith("): expected settings that go together; change those that it names")


def test_a_package_that_a_callback_misses_is_one_sentence(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("pytorch_lightning.callbacks.device_stats_monitor._PSUTIL_AVAILABLE", False)
    monitor = "+callbacks.stats._target_=pytorch_lightning.callbacks.DeviceStatsMonitor"
    err = refused(capsys, tmp_path / "run", [monitor], QUICK)
    assert sentence(err).startswith(
        "a package is missing (`DeviceStatsMonitor` cannot log CPU stats as `psutil` is not"
        " installed"
    )


@pytest.mark.parametrize("folder", ["/dev/null", "/dev/null/below", "/proc/nowhere"])
def test_a_folder_that_cannot_be_made_is_one_sentence(configure, folder):
    with pytest.raises(
        InputError, match=f"{folder} cannot be written .*: expected a folder of yours"
    ):
        train(configure(*QUICK), Path(folder))
