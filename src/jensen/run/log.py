"""The log that Hydra keeps in the folder of a run, and its lines at the terminal."""

import logging
import os
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from tqdm import tqdm


class Lines(logging.StreamHandler[TextIO]):
    """Lines for the terminal, above a bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


class RunLog(logging.FileHandler):
    """`train.log` of a run. Where that is a link nothing is written, since the training is refused
    in a moment.
    """

    def _open(self) -> TextIOWrapper:
        try:
            descriptor = os.open(
                self.baseFilename,
                os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o666,
            )
        except OSError:
            if not Path(self.baseFilename).is_symlink():
                raise
            descriptor = os.open(os.devnull, os.O_WRONLY)
        return os.fdopen(descriptor, "a")
