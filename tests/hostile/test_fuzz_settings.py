"""Every leaf of every composed configuration with values that nobody means: accepted by a stated
domain, or refused in one sentence before training. Never a traceback, never a wait.

Domains are stated where a value is checked: at a constructor, or in `jensen.launch.settings`. What
they let pass of the odd values is listed here, with the reason (`ACCEPTED`); all else must be
refused. `-s` prints the counts.
"""

import logging
import math
import re
import signal
import struct
from collections import Counter
from copy import deepcopy
from random import Random
from typing import NamedTuple

import numpy as np
import pytest
from commands import run_here, sentence
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, ListConfig, OmegaConf
from PIL import Image

from jensen import encode, evaluate, report, train
from jensen.algorithm.em import EM
from jensen.algorithm.gradient import Gradient
from jensen.data import sprites
from jensen.launch import training
from jensen.run.conf import conf_folder
from jensen.run.words import explain

ODD = {
    "null": None,
    "text": "text",
    "-1": -1,
    "0": 0,
    "nan": math.nan,
    "1e300": 1e300,
    "[]": [],
    "true": True,
}
PATIENCE = 120
"""Seconds after which a case counts as one that hangs; on an idle core one takes a third of a
second.
"""
SAMPLE = 40
"""Cases of the default run."""

ANYTHING = tuple(ODD)
ACCEPTED = {  # leaves, by regular expression: odd values that are in their domain, and why
    r"seed|.*\.seed": (("0",), "a seed like any other"),
    r"maximise|data\.(factors|size|transform)|out": (("null",), "their default: none, or all"),
    r"optimizer\.fused|trainer\.enable_.*": (("null",), "the library's own choice"),
    r"trainer\.(precision|max_epochs|gradient_clip_val|check_val_every_n_epoch|num_sanity_val_steps)": (
        ("null",),
        "Lightning's",
    ),
    r"trainer\.(max_epochs|num_sanity_val_steps)": (("-1",), "no end by epochs; all batches"),
    r"trainer\.(num_sanity_val_steps|gradient_clip_val|use_distributed_sampler)": (
        ("0",),
        "none, no clipping",
    ),
    r"trainer\.(gradient_clip_val|val_check_interval)": (
        ("1e300",),
        "a norm that is never reached",
    ),
    r".*\.hidden": (("[]",), "no layer between"),
    r"objective\..*|algorithm\.(lr_scale|beta|tolerance|weights_first).*|optimizer\.lr": (
        ("0",),
        "off",
    ),
    r"objective\.alpha": (("-1",), "any number up to 1"),
    r"algorithm\.tolerance": (("1e300",), "ends after two steps"),
    r"algorithm\.decay": (("null",), "EM on all data"),
    r"data\.(workers|pad|validation|spread|scale|sigma|alpha)": (
        ("0",),
        "none; points at one place",
    ),
    r"data\.seed|data\.source\.seed": (("0",), "a seed"),
    r"model\.prior\.(warmup|settle|dead|power|delay|forget)": (("0",), "no such phase, or change"),
    r"model\.prior\.delay|model\.likelihood\.variance": (("1e300",), "any number above"),
    r"model\.(max_iter|restarts)": (("0",), "the start itself"),
    r"model\.likelihood\.decay": (("0",), "no memory"),
    r"callbacks\.last\.(seconds|share)": (("0", "1e300"), "at every step; never"),
    r"callbacks\.progress\.refresh_rate": (("0",), "no bar"),
    r"callbacks\.diagnose\.(charts\..*|diagnostics)": (("[]",), "none"),
    r"callbacks\.hparams\.settings\..*": (ANYTHING, "a label in a table"),
    r"callbacks\.hparams\.metrics\..*": (
        ("text",),
        "the tag of a scalar; one that is not there is left out",
    ),
    r"callbacks\.hparams\.diagnostics": (("text", "[]"), "names; others are left out"),
    r"logger\..*": (("null",), "none; without a name of its own"),
    r"trainer\.profiler": (("null",), "none"),
    r"optimizer\.(weight_decay|momentum|alpha)": (("0",), "off"),
    r"callbacks\.(ema|swa)\.(decay|start)": (
        ("0", "null"),
        "the last weights; the plain mean; from the first",
    ),
    r"callbacks\.early_stopping\.min_delta": (("0", "-1"), "a worse number may pass"),
    r"callbacks\.early_stopping\.patience": (("0",), "ends at the first that is no better"),
    r"callbacks\.early_stopping\.check_on_train_epoch_end": (("null",), "as the run is validated"),
    r"callbacks\.model_summary\.max_depth": (("-1", "0"), "all; none"),
    r"latent_dim": (ANYTHING, "of a mixture: it has no latents and does not read it"),
    r"diagnostics\..*\.(threshold|tail)": (("0", "1e300"), "all; none"),
    r"diagnostics\.estimator_audit\.sizes": (("[]",), "the exact parts alone"),
    r"diagnostics\.factor_curves\.pairs": (("[]",), "no heat maps"),
    r"diagnostics\.water_filling\.(threshold|beta|noise)": (("0", "1e300"), "another curve"),
    r"trust": (("text", "[]"), "a module's name, which is asked only if the run needs it"),
}
OF_MIXTURES_ALONE = {"latent_dim"}


class Case(NamedTuple):
    base: str
    key: str
    odd: str


def _quick(*overrides):
    """Overrides of a run of two steps on a few examples."""
    quick = (
        *(
            "trainer.max_steps=2",
            "trainer.val_check_interval=2",
            "trainer.accelerator=cpu",
            "trainer.log_every_n_steps=1",
        ),
        *(
            "+trainer.enable_progress_bar=false",
            "data.validation=12",
            "data.batch_size=12",
            "latent_dim=2",
        ),
        *("callbacks=[]", "diagnostics=[]"),
    )
    chosen = {override.split("=")[0].lstrip("+") for override in overrides}
    return [word for word in quick if word.split("=")[0].lstrip("+") not in chosen] + [*overrides]


POINTS = ("data=gaussian", "data.size=48", "model=linear")
IMAGES = ("data.size=null", "model=mlp", "model.encoder.hidden=[4]")
GREY = (*IMAGES[1:], "model/likelihood=cross_entropy")
NARROW = [
    f"model.{part}.{widths}"
    for part in ("encoder", "decoder")
    for widths in ("channels=[2,2,2,2]", "hidden=[3]")
]
BLOBS = ("data=blobs", "data.size=48", "data.components=2", "model.components=2")
BY_EPOCHS = ("trainer.check_val_every_n_epoch=1", "trainer.val_check_interval=1.0")
FEW = ("model.prior.components=2", "model.prior.warmup=0")
SHORT = {
    "factor": ["objective.hidden=[4]"],
    "capacity": ["objective.capacity.steps=2"],
    "control": ["objective.target.steps=2"],
}
SLOW = {"em_slides", "dci", "beta_vae"}
"""Diagnostics that take seconds for each case."""


def bases(files):
    """Runs that choose everything once; of two that share a leaf with its value the first has
    it.
    """
    found = {
        "default": [
            *_quick(
                *IMAGES,
                "callbacks=[checkpoint,diagnose,hparams,preempt]",
                "diagnostics=[rate,codes]",
            ),
        ],
        "progress": [
            word for word in _quick(*POINTS, "callbacks=[progress]") if "progress_bar" not in word
        ],
        "callbacks": [
            *_quick(*POINTS, "callbacks=[early_stopping,lr_monitor,model_summary,ema]"),
        ],
        "em": _quick(*BLOBS, "algorithm=em", *BY_EPOCHS),
        "stepwise_em": _quick(*BLOBS, "algorithm=stepwise_em"),
        "data=normals": _quick(
            "data=normals", "data.size=48", "model=linear", "latent_dim=1", "data.validation=0"
        ),
        "data=folder": _quick(
            "data=folder", f"data.root={files}/images", "data.x_shape=[3,8,8]", *GREY
        ),
        "data=codes": _quick("data=codes", f"data.path={files}/codes.npz", "model=linear"),
        "data=dsprites": _quick("data=dsprites", f"data.path={files}/dsprites.npz", *IMAGES[1:]),
        "linear": _quick(*POINTS),
        "vamp": _quick(
            *POINTS, "model/prior=vamp", "model.prior.pseudo_inputs=3", "model.prior.unit=false"
        ),
    }
    found |= {
        f"data={name}": _quick(f"data={name}", f"data.root={files}", *GREY)
        for name in ("mnist", "mnist_32")
    }
    found |= {
        f"data={name}": _quick(f"data={name}", *GREY)
        for name in ("sprites_colour", "sprites_noise")
    }
    found |= {model: _quick(f"model={model}", *NARROW) for model in ("conv", "locatello")}
    found |= {
        f"prior={prior}": _quick(*POINTS, f"model/prior={prior}", *FEW)
        for prior in ("mixture", "factorised", "bayesian_mixture")
    }
    for name in ("learned_normal", "optimal_normal"):
        found[f"likelihood={name}"] = _quick(*POINTS, f"model/likelihood={name}")
    for path in sorted((conf_folder() / "objective").glob("*.yaml")):
        found[f"objective={path.stem}"] = _quick(
            *POINTS, f"objective={path.stem}", *SHORT.get(path.stem, [])
        )
    for path in sorted((conf_folder() / "optimizer").glob("*.yaml")):
        found[f"optimizer={path.stem}"] = _quick(*POINTS, f"optimizer={path.stem}")
    for path in sorted((conf_folder() / "schedule").glob("*.yaml")):
        steps = (
            []
            if path.stem == "constant"
            else ["objective.beta.steps=2", "algorithm.lr_scale.steps=2"]
        )
        both = [f"+schedule@{key}={path.stem}" for key in ("objective.beta", "algorithm.lr_scale")]
        found[f"schedule={path.stem}"] = _quick(*POINTS, *both, *steps)
    for path in sorted((conf_folder() / "diagnostics").glob("*.yaml")):
        found[f"diagnostics={path.stem}"] = _of_diagnostic(path.stem)
    return found


def _of_diagnostic(name):
    alone = ("callbacks=[diagnose]", f"diagnostics=[{name}]")
    if name in ("components", "mixture"):
        return _quick(*POINTS, "model/prior=mixture", *FEW, *alone)
    if name in ("water_filling", "probabilistic_pca"):
        return _quick(*POINTS, "objective.beta=1", *alone)
    if name == "em_slides":
        return _quick(
            "experiment=em_slides",
            "data.size=48",
            "data.validation=0",
            "algorithm.weights_first=1",
            *BY_EPOCHS,
            *alone,
        )
    return _quick(*IMAGES, *alone)


def leaves(node, place=""):
    """Key, raw value and the part that it is an argument of, for each leaf; a list is one."""
    for key in node:
        raw = node._get_node(key)
        at = f"{place}.{key}" if place else str(key)
        if isinstance(raw, DictConfig):
            yield from leaves(raw, at)
        else:
            value = (
                OmegaConf.to_container(raw, resolve=False)
                if isinstance(raw, ListConfig)
                else raw._value()
            )
            target = node._get_node("_target_")
            yield at, value, target._value() if target is not None else None


def all_cases(configs):
    """Those of every leaf that no base before has, but for the value that it has already."""
    seen = set()
    cases = []
    for base, cfg in configs.items():
        for key, value, target in leaves(cfg):
            if (mark := (key, repr(value), target)) in seen:
                continue
            seen.add(mark)
            cases += [Case(base, key, odd) for odd in ODD if not _same(value, ODD[odd])]
    return cases


def _same(value, other):
    return type(value) is type(other) and (value == other or value != value)


def allowed(case, cfg):
    """The reason for which an odd value may pass; empty if it must not."""
    value = OmegaConf.select(
        cfg, case.key, throw_on_missing=False, throw_on_resolution_failure=False
    )
    if case.odd == "true" and isinstance(value, bool):
        return "a flag"
    if case.key in OF_MIXTURES_ALONE and not str(cfg.algorithm._target_).endswith("EM"):
        return ""
    reasons = [
        why
        for keys, (odds, why) in ACCEPTED.items()
        if re.fullmatch(keys, case.key) and case.odd in odds
    ]
    return reasons[0] if reasons else ""


class HangError(BaseException):
    """Not an Exception, so that nothing takes it for a fault of its own."""


def _hang(*_):
    raise HangError


class Outcome(NamedTuple):
    kind: str
    said: str


def tried(cfg, folder, steps):
    """What becomes of a run: accepted, refused, late (refused after a step was made), traceback or
    hang.
    """
    steps.clear()
    before = signal.signal(signal.SIGALRM, _hang)
    signal.alarm(PATIENCE)
    try:
        if cfg.maximise is not None:
            train.check_choice(
                "maximise", str(cfg.maximise).split("/")[0], ("val", "test", *cfg.diagnostics)
            )
        training.train(cfg, folder)
        return Outcome("accepted", "")
    except HangError:
        return Outcome("hang", "")
    except Exception as error:
        said = explain(error)
        if said is None or "\n" in said.strip():
            return Outcome("traceback", f"{type(error).__name__}: {error}")
        return Outcome("late" if steps else "refused", said)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Data sets of 48 examples, as files."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for split in ("train", "t10k"):
        for name, rows in {
            "images-idx3": rng.integers(0, 256, (48, 28, 28)),
            "labels-idx1": np.arange(48) % 10,
        }.items():
            header = struct.pack(f">4B{rows.ndim}I", 0, 0, 8, rows.ndim, *rows.shape)
            (folder / f"{split}-{name}-ubyte").write_bytes(header + rows.astype(np.uint8).tobytes())
    (folder / "images").mkdir()
    for number in range(48):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(
            folder / "images" / f"{number}.png"
        )
    codes = rng.normal(size=(48, 2)).astype(np.float32)
    np.savez(
        folder / "codes.npz",
        codes=codes,
        factors=rng.integers(0, 3, (48, 2)),
        names=np.array(["a", "b"]),
    )
    return folder


@pytest.fixture(scope="module")
def composed(files):
    """`composed(names)`: the configurations of those bases, each composed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sprites, "SIZES", (3, 2, 2, 2, 2))
        np.savez(files / "dsprites.npz", imgs=sprites.render(sprites.grid()))
    overrides = bases(files)
    made = {}

    def compose_each(names=tuple(overrides)):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            for name in (name for name in names if name not in made):
                made[name] = compose("train", overrides[name])
                OmegaConf.set_struct(made[name], False)
        return {name: made[name] for name in names}

    return compose_each


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """The steps of the run under way, on 48 sprites instead of 737,280; loggers of the libraries
    are still.
    """
    made = []
    monkeypatch.setattr(sprites, "SIZES", (3, 2, 2, 2, 2))
    monkeypatch.setenv("JENSEN_CACHE", str(tmp_path / "cache"))
    for algorithm in (Gradient, EM):

        def counted(self, *given, step=algorithm.training_step):
            made.append(given)
            return step(self, *given)

        monkeypatch.setattr(algorithm, "training_step", counted)
    logging.disable(logging.CRITICAL)
    yield made
    logging.disable(logging.NOTSET)


def check(cases, configs, folder, steps):
    """Tries the cases; the counts, and one line for each that is neither refused in time nor
    accepted on purpose.
    """
    counts = Counter()
    faults = []
    for number, case in enumerate(cases):
        cfg = deepcopy(configs[case.base])
        OmegaConf.update(cfg, case.key, deepcopy(ODD[case.odd]), merge=False)
        outcome = tried(cfg, folder / str(number), steps)
        counts[outcome.kind] += 1
        if outcome.kind != "refused" and not (
            outcome.kind == "accepted" and allowed(case, configs[case.base])
        ):
            faults.append(
                f"{case.base}: {case.key}={case.odd}: {outcome.kind} {outcome.said[:200]}"
            )
    told = f"{len(cases)} cases: {counts['refused']} refused, {counts['accepted']} accepted"
    print(
        f"\n{told}, {len(faults)} faults ({counts['traceback']} tracebacks, {counts['late']} late,"
        f" {counts['hang']} hang)"
    )
    return faults


def test_a_sample_of_odd_settings_is_refused_or_in_a_stated_domain(
    files, composed, tmp_path, steps
):
    random = Random(0)
    quick = [base for base in bases(files) if not any(name in base for name in SLOW)]
    configs = composed(["default", "em", *random.sample(quick, 6)])
    assert not check(random.sample(all_cases(configs), SAMPLE), configs, tmp_path, steps)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(16))
def test_every_odd_setting_is_refused_or_in_a_stated_domain(composed, tmp_path, steps, part):
    configs = composed()
    faults = check(all_cases(configs)[part::16], configs, tmp_path, steps)
    assert not faults, "\n".join(faults)


NAMES = ("text", "-1", "0", "nan", "1e300", "[]", "true")
"""Odd values that are names of files all the same: a path is read as it is typed."""

OTHERS = {  # programs, and for each setting the odd values in its domain, which are not tried here
    "evaluate": {
        "codes": (),
        "out": ("null", *NAMES),
        "diagnostics.rate.threshold": ("0", "1e300"),
    },
    "encode": {"run": (), "split": (), "checkpoint": (), "trust": ("text", "[]"), "out": NAMES},
    "report": {"sweep": (), "models": ("true",), "out": ("null", *NAMES)},
}
MAINS = {"evaluate": evaluate.main, "encode": encode.main, "report": report.main}


@pytest.mark.slow
@pytest.mark.parametrize("program", OTHERS)
def test_odd_settings_of_the_other_programs_are_one_sentence(
    capsys, files, run, tmp_path, monkeypatch, program
):
    monkeypatch.chdir(tmp_path)
    given = {
        "evaluate": {
            "codes": f"{files}/codes.npz",
            "out": f"{tmp_path}/scores.json",
            "diagnostics": "[rate]",
        },
        "encode": {"run": str(run), "out": f"{tmp_path}/codes.npz"},
        "report": {"sweep": str(run.parent), "out": str(tmp_path), "models": "false"},
    }[program]
    for key, fine in OTHERS[program].items():
        for odd in (odd for odd in ODD if odd not in fine):
            settings = given | {key: odd}
            ended = run_here(
                capsys, MAINS[program], *(f"{name}={value}" for name, value in settings.items())
            )
            assert ended.status == 1, f"{key}={odd} is accepted"
            assert "expected" in sentence(ended.err), f"{key}={odd}: {ended.err}"
