"""Sweeps as their launchers set them up, in this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode

from jensen.launch import naming
from jensen.launch.sweep import Sweep
from jensen.run.conf import conf_folder


@contextmanager
def planning() -> Iterator[Callable[..., Sweep]]:
    """`make(*overrides)`: as the launcher of `jensen.train -m ... hydra.sweep.dir=sweep` sets it
    up.
    """
    naming.register()
    made: list[Sweep] = []
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        loader = GlobalHydra.instance().hydra.config_loader

        def make(
            *overrides: str,
            folder: tuple[str, ...] = ("hydra.sweep.dir=sweep",),
            retry_failed: bool = False,
        ) -> Sweep:
            config = loader.load_configuration("train", [*folder, *overrides], RunMode.MULTIRUN)
            made.append(Sweep(HydraContext(loader, Callbacks()), config, retry_failed))
            return made[-1]

        try:
            yield make
        finally:
            for each in made:
                each.places.held.close()
