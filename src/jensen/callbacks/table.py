"""`metrics.csv`: the numbers of a run as a table that any program reads."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from jensen.base.errors import InputError, check_path

FILE = "metrics.csv"
HEADER = ("step", "tag", "value")


class CSV(Logger):
    """Writes a line for each number that is logged: its step, its tag and its value, in full.

    One line a number, not one a step, so that the file only ever grows: a run that goes on cuts it
    to the length that the checkpoint knows (`callbacks.events`). As one row a step it is
    `pandas.read_csv(file).pivot(index="step", columns="tag", values="value")`. Numbers alone.

    Args:
        save_dir: the folder of the run.

    Raises:
        InputError: there is a `metrics.csv` that no run wrote.
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        check_path("save_dir", save_dir)
        self.path = Path(save_dir) / FILE
        self._file: TextIO | None = None
        if self.path.exists() and not ours(self.path):
            raise InputError(
                f"{self.path} does not begin with {','.join(HEADER)}: expected the file of a run,"
                " or none; rename it, or leave out logger.csv"
            )

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        rows = [(step, tag, repr(float(value))) for tag, value in metrics.items()]
        csv.writer(self._opened(), lineterminator="\n").writerows(rows)
        self._opened().flush()

    @rank_zero_only
    def log_hyperparams(self, params: Any, *given: Any, **named: Any) -> None:
        """Nothing: the configuration is `.hydra/config.yaml`, beside the table."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _opened(self) -> TextIO:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", newline="")
            if not self._file.tell():
                self._file.write(",".join(HEADER) + "\n")
        return self._file


def ours(path: Path) -> bool:
    """Tell whether a run wrote the file, or was killed as it began to."""
    head = (",".join(HEADER) + "\n").encode()
    with path.open("rb") as file:
        return head.startswith(file.read(len(head)))
