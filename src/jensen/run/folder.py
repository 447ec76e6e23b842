"""The life of a run in its folder: begun, stopped, continued, and at last finished or failed.

`.hydra/` says what is trained here, and is written before training starts. `failed.json` says why
the last attempt failed; `finished.json` is written last of all, so that whatever was killed has
none.
"""

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jensen.base.errors import InputError, RefusedError, SaidError
from jensen.base.files import within
from jensen.base.signals import Stopped
from jensen.callbacks.reasons import CALLBACK, EARLY, TIME
from jensen.run import peers, seal
from jensen.run.identity import VALIDATION, difference, identity, written
from jensen.run.reading import configuration, saved_step
from jensen.run.record import get_json, put, put_json, put_scores
from jensen.run.words import FULL, explain, leads, rank, say, show

if TYPE_CHECKING:  # it takes seconds to import, which a run that is finished does without
    from jensen.data.module import DataModule

FINISHED = "finished.json"
FAILED = "failed.json"
LOST = ".lost"
"""A file of the ranks that lost another one: whoever makes it says so for all."""
DATA = ".hydra/identity.json"
HELD_OUT = "held_out"
"""Its key for how many examples the run is judged on."""
PATIENCE = 5.0
"""Seconds to wait for a process that is just ending."""
NOTE = "note"
"""The key of finished.json for what else is to be known."""
WARNINGS = "warnings"
"""Its key for what ails the model, sentences by a short name; absent where nothing does."""
BEST = "best"
"""Its key for the number that best.ckpt is the best by: monitor and value."""
_SHOWS = re.compile(r"(pytorch_)?lightning\..*(ProgressBar|Summary|Monitor)").fullmatch

Standing = Literal["new", "interrupted", "finished", "failed", "other"]


class RunFolder:
    """A run, as the process that trains it has its folder. Under DDP every rank makes one, and rank
    zero's writes, but for what fails on another alone.

    started: the ranks that this process has started.
    """

    def __init__(self, folder: Path, cfg: DictConfig) -> None:
        self.folder = folder
        self.cfg = cfg
        self.leads = leads()
        self.mark = {"identity": identity(cfg)}
        self.evidence = _evidence(cfg)
        self.goes_on = False
        self.started: Callable[[], Sequence[subprocess.Popen[Any]]] = list
        self._failed_before = _stamp(folder / FAILED)
        self._held_out = 0
        self._claimed = False
        self._start = time.monotonic()

    def found(self) -> dict[str, float] | None:
        """The results of a run that was found finished before, of which nothing has changed that
        this came of (`seal`); None of any other, which may be finished too.
        """
        if not self.leads or not seal.is_whole(self.folder, self.evidence):
            return None
        return self._nothing_to_do(marker(self.folder))

    def begin(self, data: "DataModule") -> dict[str, float] | None:
        """Makes the folder this run's; the results, if it is finished already.

        A finished run that is to go on remains what it is until `claim`: what comes before may
        still be refused.

        Raises:
            RefusedError: the data are not those that the run was begun with, or it is longer than
                it should become.
        """
        finished = marker(self.folder)
        if not self.leads and not finished:
            return None
        from jensen.run.fingerprint import fingerprint  # its imports take seconds

        self.mark["data"] = fingerprint(data)
        self._held_out = len(data.source.rows[0])
        if (
            _holds_training(self.folder)
            and get_json(self.folder / DATA).get("data", self.mark["data"]) != self.mark["data"]
        ):
            raise RefusedError(
                f"{self.folder} was trained on other data under the same configuration: expected"
                " the same examples; restore them, or train in another folder"
            )
        if finished and self.mark == {key: finished.get(key) for key in self.mark}:
            if not (problem := unfinished(self.folder, self.cfg, finished)):
                if self.leads:
                    seal.put(self.folder, self.evidence)
                return self._nothing_to_do(finished)
            say(f"{problem}: this goes on")
            self.goes_on = True
        self._check_length(finished)
        if not finished or saved_step(self.folder) != finished["step"]:
            self.claim()
        return None

    def _nothing_to_do(self, finished: Mapping[str, Any]) -> dict[str, float]:
        """The results of a finished run, which is said."""
        if NOTE in finished:
            say(unvalidated(self.folder, finished["step"]))
        say(f"{self.folder} is finished: nothing to do")
        return dict(finished["results"])

    def claim(self) -> None:
        """Makes the folder this run's, and no finished one any more."""
        if self._claimed or not self.leads:
            return
        self._claimed = True
        for name in (FAILED, FINISHED):
            (self.folder / name).unlink(missing_ok=True)
        _describe(self.folder / ".hydra", self.cfg)
        put_json(self.folder / DATA, {**self.mark, HELD_OUT: self._held_out})

    def _check_length(self, finished: Mapping[str, Any]) -> None:
        """Refuse an end that the run is beyond, finished or interrupted: what it holds would count
        as a shorter run's.
        """
        trainer = self.cfg.trainer
        done = {
            "step": finished.get("step") or saved_step(self.folder) or 0,
            "epoch": finished.get("epochs") or 0,
        }
        for key, unit, most in (
            ("max_steps", "step", trainer.max_steps),
            ("max_epochs", "epoch", trainer.max_epochs),
        ):
            if most is not None and 0 <= most < done[unit]:
                raise RefusedError(
                    f"trainer.{key} is {most} but {self.folder} has finished {unit} {done[unit]}:"
                    " expected at least that; train in another folder"
                )

    def finish(
        self,
        step: int,
        why: str,
        results: dict[str, float],
        scores: dict[str, Any],
        epochs: int | None = None,
        validated: bool = True,
        warnings: Mapping[str, str] | None = None,
        best: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the scores, and then the marker, which says why the run ended, if that step was
        not validated, what ails the model, and what best.ckpt is the best by.
        """
        if not self.leads:
            return
        if gone := put_scores(self.folder / "scores.json", scores):
            say(f"scores.json had {', '.join(gone)} of an earlier step or version: gone from it")
        seconds = round(time.monotonic() - self._start, 3)
        found: dict[str, Any] = {
            "step": step,
            "epochs": epochs,
            "why": why,
            "seconds": seconds,
            "results": results,
        }
        found |= {WARNINGS: dict(warnings)} if warnings else {}
        found |= {BEST: dict(best)} if best else {}
        if not validated:
            found[NOTE] = unvalidated(self.folder, step)
            say(found[NOTE])
        put_json(self.folder / FINISHED, self.mark | found)
        # Of data or code that were changed meanwhile this run says nothing.
        if _evidence(self.cfg) == self.evidence and not unfinished(self.folder, self.cfg, found):
            seal.put(self.folder, self.evidence)

    def fail(self, error: Exception) -> None:
        """Write down why, but of an attempt that has left a finished run as it was.

        Raises:
            SaidError: this is another rank than zero, and one that fails too says why.
        """
        if not self.leads and peers.wait_for_word(self._word, list):
            raise SaidError(first_line(error)) from error
        if self._claimed or not marker(self.folder):
            mark = {"identity": self.mark["identity"], "configuration": written(self.cfg)}
            own = self.folder / f".{rank()}.{FAILED}"  # several ranks may fail at once
            with suppress(
                InputError, OSError
            ):  # a full disk may be why; the error itself is what is to be seen
                put_json(own, mark | {"error": first_line(error)})
                own.replace(self.folder / FAILED)

    def lose(self, what: str) -> NoReturn:
        """End a run that lost a rank.

        Args:
            what: torch's word on the loss.

        Raises:
            SaidError: for a reason that the rank has left.
            Stopped: without one; nothing failed, and the same command goes on.
        """
        if self.leads:  # at once, for the others that wait to hear whether rank zero is there
            with suppress(OSError):
                (self.folder / LOST).touch()
        if word := peers.wait_for_word(self._word, self.started if self.leads else list):
            raise SaidError(word)
        step = saved_step(self.folder)
        goes_on = (
            f"goes on from step {step}" if step else "begins anew, since nothing was saved yet"
        )
        ended = peers.ended(self.started()) or f"a rank of the run ended ({what})"
        sentence = f"{ended}, and the others cannot go on without it: the same command {goes_on}"
        if self.leads:
            say(sentence)
        elif peers.is_first(self.folder / LOST):
            show(f"jensen: {sentence}")
        raise Stopped("", peers.LOST)

    def _word(self) -> str:
        """The error that another rank has written since this one began; empty where none has."""
        if _stamp(self.folder / FAILED) in (None, self._failed_before):
            return ""
        return str(get_json(self.folder / FAILED).get("error", ""))


def _stamp(path: Path) -> tuple[int, int] | None:
    """The mark that tells a file from one that is put in its place; None where there is none."""
    with suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns
    return None


def _evidence(cfg: DictConfig) -> str:
    tree: Any = OmegaConf.to_container(cfg, resolve=True)
    return seal.evidence(tree)


@contextmanager
def open_run(folder: Path, cfg: DictConfig) -> Iterator[RunFolder]:
    """Holds the folder for one process and writes down a failure; a run that is stopped, or that
    lost a rank, has none.

    Raises:
        RefusedError: another process trains there, or another configuration did.
        SaidError: another rank prints why.
        Stopped: a rank is gone.
    """
    this = RunFolder(folder, cfg)
    _refuse_links(folder)
    with lock(folder, f"another process trains in {folder}") if this.leads else nullcontext():
        if _holds_training(folder) and (found := _difference(folder, cfg)):
            raise RefusedError(
                f"{folder} holds another run ({found}): expected the same one, to continue it;"
                " train in another folder"
            )
        if this.leads:
            (folder / LOST).unlink(missing_ok=True)
        try:
            yield this
        except RefusedError:
            raise
        except Exception as error:
            if what := peers.lost(error):
                this.lose(what)
            if (full := _no_room(error)) is None or isinstance(error, InputError):
                this.fail(error)
                raise
            sentence = InputError(
                f"{folder} has no room left ({full.strerror}): expected free disk; make room and"
                " run the same command again, it continues"
            )
            this.fail(sentence)
            raise sentence from error


def _refuse_links(folder: Path) -> None:
    """Before anything is read or written: of what a run writes nothing may lie elsewhere, where
    others' files are.
    """
    for place in (folder, folder / ".hydra", folder / "checkpoints"):
        for path in place.iterdir() if place.is_dir() else ():
            if path.is_symlink():
                within(folder, path)


@contextmanager
def lock(folder: Path, held: str) -> Iterator[None]:
    """Raises:
    RefusedError: `held` is so, and remains so for `PATIENCE` seconds; or the folder cannot be
        written.
    """
    file = FileLock(folder / ".lock", timeout=PATIENCE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.acquire()
    except Timeout:
        raise RefusedError(
            f"{held}: expected one at a time; wait for it, or choose another folder"
        ) from None
    except OSError as error:
        raise RefusedError(
            f"{folder} cannot be written ({error.strerror}): expected a folder of yours; choose"
            " another"
        ) from error
    try:
        yield
    finally:
        file.release()


def unvalidated(folder: Path, step: int) -> str:
    """The words of a run whose validation is turned off."""
    command = f"python -m jensen.evaluate {shlex.quote(f'run={folder}')}"
    return f"{folder} ended at step {step}, which was never validated ({VALIDATION} is 0): {command} gives its numbers"


def first_line(error: BaseException) -> str:
    """The sentence of bad input; of anything else its class and the first line of what it says."""
    return explain(error) or f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def marker(folder: Path) -> dict[str, Any]:
    """The content of finished.json; nothing where it is torn, or names no step and results."""
    found = get_json(folder / FINISHED)
    return (
        found
        if isinstance(found.get("step"), int) and isinstance(found.get("results"), dict)
        else {}
    )


def incomplete(folder: Path) -> str:
    """The reason why a run has come to no end; empty if it has."""
    if get_json(folder / FINISHED):
        return ""
    if failed := get_json(folder / FAILED):
        return f"failed: {failed.get('error', 'it does not say why')}"
    return "not finished; the command that began it continues it"


def standing(folder: Path, cfg: DictConfig, data: Callable[[], str]) -> Standing:
    """The state of a folder for the run that `cfg` configures; `data` gives the data's fingerprint,
    and is asked if it matters.
    """
    mine = identity(cfg)
    failure = get_json(folder / FAILED)
    # A key without effect on the numbers may be what it failed by: changed, it is to be tried
    # again.
    failed = failure.get("identity") == mine and failure.get(
        "configuration", written(cfg)
    ) == written(cfg)
    if not _holds_training(folder):
        return "failed" if failed else "new"
    try:
        theirs = identity(configuration(folder))
    except (
        InputError,
        OmegaConfBaseException,
        RecursionError,
        TypeError,
        ValueError,
    ):  # a torn one, or no run's
        return "other"
    if theirs != mine or get_json(folder / DATA).get("data", data()) != data():
        return "other"
    finished = marker(folder)
    if (
        finished.get("identity") == mine
        and finished.get("data") == data()
        and not unfinished(folder, cfg, finished)
    ):
        return "finished"
    return "failed" if failed else "interrupted"


def unfinished(folder: Path, cfg: DictConfig, finished: Mapping[str, Any]) -> str:
    """The reason why a run is not what its marker `finished` says; empty if it is. Before 0.2 a
    marker could be wrong.
    """
    step = finished.get("step")
    if (saved := saved_step(folder)) != step:
        holds = "there is no such last.ckpt" if saved is None else f"last.ckpt holds step {saved}"
        return f"{folder / FINISHED} says step {step} and {holds}"
    cut = (
        "why" not in finished
        and cfg.trainer.get("max_time") is not None
        and (saved or 0) < cfg.trainer.max_steps
    )
    if cut:
        return f"trainer.max_time ended {folder} at step {step} of {cfg.trainer.max_steps}"
    why = str(finished.get("why", ""))
    early = _duration if why == TIME else stopping if why.startswith((CALLBACK, EARLY)) else None
    if (
        early is None
        or not (folder / ".hydra" / "config.yaml").exists()
        or early(cfg) == early(configuration(folder))
    ):
        return ""
    return f"{why} ended {folder} at step {step}, and what did so is set otherwise now"


def _duration(cfg: DictConfig) -> str:
    return str(cfg.trainer.get("max_time"))


def stopping(cfg: DictConfig) -> str:
    """The callbacks that may end a run before its steps or epochs, as JSON: those that are not of
    ours, nor only show it.
    """
    callbacks: Any = OmegaConf.to_container(cfg.callbacks, resolve=True)
    targets = {name: str((each or {}).get("_target_")) for name, each in callbacks.items()}
    may = {
        name: callbacks[name]
        for name, target in targets.items()
        if not target.startswith("jensen.") and not _SHOWS(target)
    }
    return json.dumps(may, sort_keys=True, default=str)


def _holds_training(folder: Path) -> bool:
    return (folder / FINISHED).exists() or any((folder / "checkpoints").glob("*.ckpt"))


def _difference(folder: Path, cfg: DictConfig) -> str:
    return (
        difference(configuration(folder), cfg)
        if (folder / ".hydra" / "config.yaml").exists()
        else ""
    )


def _no_room(error: BaseException | None) -> OSError | None:
    """The full disk that is behind an error, such as torch's, which names none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


def _describe(folder: Path, cfg: DictConfig) -> None:
    """The files that Hydra would write, each whole or not at all."""
    if HydraConfig.initialized():
        hydra: Any = HydraConfig.instance().cfg
        put(folder / "hydra.yaml", OmegaConf.to_yaml(hydra))
        put(folder / "overrides.yaml", OmegaConf.to_yaml(hydra.hydra.overrides.task))
    put(folder / "config.yaml", OmegaConf.to_yaml(cfg))
