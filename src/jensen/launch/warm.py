"""All that training imports, for the process that a sweep's jobs are forked from (`server`).

Nothing of it has touched a GPU. The signals that ask a run to end wait here: they are sent to all
processes of a SLURM step, and whoever is forked lets them through.
"""

import warnings
from importlib import import_module

from jensen.base import signals
from jensen.launch.server import MODULE

# multiprocessing runs the sweep's own main module again in each process, which is imported here.
warnings.filterwarnings("ignore", f"'{MODULE}' found in sys.modules", RuntimeWarning)
import_module(MODULE)
import_module("jensen.launch.training")
signals.hold(True)
