"""Slows a run down without changing it, so that there is time to preempt it."""

import time

from pytorch_lightning import Callback


class Pace(Callback):
    """Waits `seconds` in each step."""

    def __init__(self, seconds):
        self.seconds = seconds

    def on_train_batch_start(self, *_):
        time.sleep(self.seconds)
