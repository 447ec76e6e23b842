"""The picture that the README opens with: the traversals of a run, moving.

    python -m jensen.train experiment=squares seed=10 hydra.run.dir=runs/lead
    python scripts/lead_picture.py runs/lead .github/traversals.gif --latents 3

A column is a latent, headed by its rate and the factor that it tells most of; a row is a
held-out image. A frame in each column moves that latent alone, from the 1 % to the 99 % quantile of
its codes and back.
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from jensen.base.errors import InputError
from jensen.base.files import write
from jensen.diagnostics.picture import gif
from jensen.diagnostics.snapshot import Film, Snapshot
from jensen.diagnostics.traversal_film import traversal_film
from jensen.run.diagnose import on_run

MOST_BYTES = 700_000
"""A page that people open first should load at once."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("run", type=Path, help="the folder of a run")
    arguments.add_argument("out", type=Path, help="the GIF to write")
    arguments.add_argument("--latents", type=int, default=10, help="columns, of largest rate first")
    arguments.add_argument("--steps", type=int, default=15, help="positions of a latent")
    arguments.add_argument("--images", type=int, default=3, help="held-out images, a row each")
    given = arguments.parse_args()
    try:
        picture = drawn(given.run, latents=given.latents, steps=given.steps, images=given.images)
    except InputError as error:
        raise SystemExit(f"lead_picture: {error}") from None
    write(given.out, lambda file: file.write(picture))
    print(f"{given.out}: {len(picture):,} bytes")


def drawn(run: Path, **options: int) -> bytes:
    """The film of a run's held-out images as a GIF.

    Raises:
        InputError: no run, no images, or more bytes than `MOST_BYTES`.
    """
    films: dict[str, Film] = {}

    def filmed(snapshot: Snapshot) -> Mapping[str, Film]:
        films.update(traversal_film(snapshot, **options))
        return {}

    on_run(run, "validation", "last", {"traversal_film": partial(filmed)})
    if not films:
        raise InputError(f"{run} holds no model of images: expected one, whose traversals move")
    picture = gif(films["film"])
    if len(picture) > MOST_BYTES:
        raise InputError(
            f"the picture has {len(picture):,} bytes: expected at most {MOST_BYTES:,}; fewer"
            " --steps or --images make it smaller"
        )
    return picture


if __name__ == "__main__":
    main()
