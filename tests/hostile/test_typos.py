"""A misspelt command line, and the one sentence that says what was meant."""

import re

import pytest
from commands import run_here

from jensen import encode, evaluate, report, train
from jensen.base.errors import InputError, check_choice
from jensen.launch import help as helping
from jensen.launch.console import readable
from jensen.run.compose import compose
from jensen.run.conf import conf_folder

COMMANDS = {"train": train, "evaluate": evaluate, "encode": encode, "report": report}

TYPOS = {  # the beginning of the sentence, and its end
    "train objective.bta=1": ("objective.bta is no key of the config", "one of beta; did you mean objective.beta?"),
    "train latent_dmi=3": ("latent_dmi is no key", "; did you mean latent_dim?"),
    "train beta=3": ("beta is no key", "; did you mean objective.beta?"),
    "train trainer.max_step=3": ("trainer.max_step is no key", "; did you mean trainer.max_steps?"),
    "train objectve=beta": ("objectve is no key", "; did you mean objective?"),
    "train model/prio=mixture": ("model/prio is no key", "; did you mean model/prior?"),
    "train data=sprite": ("data is sprite: expected one of blobs, ", "; did you mean sprites or dsprites?"),
    "train callbacks=[progres]": ("callbacks is progres: expected one of ", "; did you mean progress?"),
    "train hydra/launcher=subproces": ("hydra/launcher is subproces: ", "; did you mean subprocess?"),
    "train experiment=gm": ("experiment is gm: expected one of ", "; did you mean gmm?"),
    "train objective.beta": ("objective.beta has no value: ", "without spaces, such as objective.beta=4.0"),
    "train objective": ("objective has no value: expected objective=... with one of beta, ", "wae"),
    "train objectve": ("objectve is no override: expected KEY=VALUE", "; did you mean objective=...?"),
    "train latent_dim=${": ("latent_dim=${ cannot be read (", "in quotes, as 'latent_dim=[1,2]'"),
    "train +objective.beta=3": ("objective.beta is in the configuration already: ", "write objective.beta=3"),
    "train +objective=dip": ("objective is chosen already: ", "write objective=dip"),
    "train +schedle@objective.beta=linear": ("schedle is no group of choices: ", "; did you mean schedule?"),
    "train +schedule@objective.beta=lnear": ("schedule is lnear: ", "; did you mean linear?"),
    "train schedule@objective.beta=linear": ("schedule@objective.beta is not", "write +schedule@objective.beta=linear"),
    "train diagnostics=[] trainer.limit_val_batches=0": ("trainer.limit_val_batches is not", "=0"),
    "train trainer.limit_val_batches=2": ("trainer.limit_val_batches is not", "write +trainer.limit_val_batches=2"),
    "train ~objective.bta": ("objective.bta is no key", "; did you mean objective.beta?"),
    "train ~callbacks.progres": ("callbacks.progres is no key", "; did you mean callbacks.progress?"),
    "train experiment=squares objective.beta=3": ("objective.beta is no key", "; objective=beta has it"),
    "train ~objective=dip": ("~objective=dip leaves out a choice that is not made: ", "expected ~objective, or ~objective=beta"),
    "train data=cues data.noise={see:1,touch:2}": ("data.noise has no touch: expected one of see, hear", "for what is to go"),
    "train objective=control objective.rate=1": ("objective.rate is no", "one of target, kp, ki, beta_min, beta_max"),
    "train diagnostics=[] objective=control objective.rate=1": ("objective.rate is no", "of target, kp, ki, beta_min, beta_max"),
    "train objective=dip objective.lambda_od=1": ("objective.lambda_od is", "one of variant, off_diagonal, diagonal"),
    "train objective=control objective.steps=9": ("objective.steps is no key", "; did you mean objective.target.steps?"),
    "train trainer.lr=1": ("trainer.lr is no key", "; did you mean optimizer.lr?"),
    "train prior=mixture": ("prior is no key", "; did you mean model/prior?"),
    "train callbacks.diagnose.charts.x=1": ("callbacks.diagnose.charts.x is no key", ", 'from 0 to 1, larger is better'"),
    "evaluate rn=x": ("rn is no key of the configuration: expected one of ", "; did you mean run?"),
    "evaluate diagnostics=[rat]": ("diagnostics is rat: ", "; did you mean rate?"),
    "encode ot=x": ("ot is no key of the configuration: expected one of run, split, ", "; did you mean out?"),
}  # fmt: skip

AT_THE_SHELL = {
    "train +objectve.beta=3": ("+objectve.beta would be a new key, which nothing reads: ", "; did you mean objective.beta?"),
    "train -m data=sprites,mnst": ("data is mnst: ", "; did you mean mnist or qmnist?"),
    "train --objective.beta=3": ("--objective.beta=3 is no option: ", "without dashes; write objective.beta=3"),
    "train --multirn": ("--multirn is no option: expected one of ", "; did you mean --multirun?"),
    "train --multirun --cfg=job": ("--multirun and --cfg are given: ", "leave one out"),
    "train --config-dir=/nowhere": ("this cannot be taken (", "not found): expected what python -m jensen.train --help shows"),
    "report swep=x": ("swep is no key of the configuration: expected one of sweep, ", "; did you mean sweep?"),
    "train trainer.zz=1": ("trainer.zz is no key of the configuration: expected one of accelerator, ", ""),
}  # fmt: skip


@pytest.mark.parametrize("line", TYPOS)
def test_a_typo_is_one_sentence_that_says_what_was_meant(line):
    command, *words = line.split()
    with pytest.raises(InputError) as refused:
        compose(command, words)
    begins, ends = TYPOS[line]
    assert str(refused.value).startswith(begins)
    assert str(refused.value).endswith(ends)


@pytest.mark.parametrize("line", AT_THE_SHELL)
def test_a_command_ends_with_that_sentence_alone(capsys, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    command, *words = line.split()
    ended = run_here(capsys, COMMANDS[command].main, *words)
    (said,) = ended.err.strip().splitlines()
    begins, ends = AT_THE_SHELL[line]
    assert said.startswith(begins)
    assert said.endswith(ends)
    assert ended.status == 1


def test_a_full_error_is_there_for_who_asks(capsys, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match=r"Could not override .objective\.bta."):
        run_here(capsys, train.main, "objective.bta=1")


def test_none_of_a_group_of_several_is_null():
    assert readable("diagnostics=null") == "diagnostics=[]"
    assert compose("train", [readable("diagnostics=null")]).diagnostics == {}


def test_a_key_of_ones_own_is_taken(capsys, tmp_path):
    words = ("+note=mine", "+mine.size=3", "+data.extra=1", f"hydra.run.dir={tmp_path}")
    assert "unexpected keyword argument 'extra'" in run_here(capsys, train.main, *words).err


def test_a_misspelt_argument_of_a_part_is_named(capsys, tmp_path):
    words = (
        "+trainer.max_stps=3",
        f"hydra.run.dir={tmp_path}",
        "data.size=100",
        "data.validation=9",
    )
    err = run_here(capsys, train.main, *words, "data.batch_size=10").err
    assert err.strip().endswith("; did you mean max_steps or min_steps?")


def test_overrides_in_python_are_told_the_same():
    with pytest.raises(
        InputError, match=r"objective.bta is no key .*; did you mean objective.beta\?"
    ):
        compose("train", ["objective.bta=1"])
    with pytest.raises(InputError, match=r"expected one of last, best; did you mean best\?"):
        check_choice("checkpoint", "bst", ("last", "best"))


def test_help_is_one_screen(capsys):
    for name, command in COMMANDS.items():
        out = run_here(capsys, command.main, "--help").out
        lines = out.rstrip().splitlines()
        assert len(lines) <= 50
        assert max(map(len, lines)) <= helping.WIDTH
        assert out.count(f"python -m jensen.{name}") >= 6  # five examples, and --cfg
        assert lines[-1] == f"python -m jensen.{name} --cfg job prints all keys and their values."


def test_help_names_every_group_and_choice():
    shown = helping.screen("train")
    chosen = {*helping.groups()} - {*helping.HIDDEN}
    assert chosen == {*helping.MEANINGS}
    for group in chosen:
        names = [file.stem for file in (conf_folder() / group).glob("*.yaml")]
        assert all(name in shown for name in names)
    assert "sprites*" in shown
    assert "mnist*" not in shown


def test_help_of_a_group_says_what_each_choice_is(capsys):
    out = run_here(capsys, train.main, "--help", "objective").out
    assert re.search(r"^  beta +distortion \+ beta \* rate$", out, re.MULTILINE)
    heads = [line.split() for line in out.splitlines() if line[:2] == "  " and line[2] != " "]
    assert len(heads) == len([*(conf_folder() / "objective").glob("*.yaml")])
    assert all(len(words) > 3 for words in heads)
