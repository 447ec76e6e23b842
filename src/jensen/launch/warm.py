"""All that training imports, for the process that a sweep's jobs are forked from (`server`).

Nothing of it has touched a GPU. The signals that ask a run to end wait here: they are sent to all
processes of a SLURM step, and whoever is forked lets them through.
"""

from importlib import import_module

from jensen.base import signals
from jensen.launch.server import MODULE

import_module(MODULE)
import_module("jensen.launch.training")
signals.hold(True)
