"""Observations that the model makes of draws from its prior."""

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from torch import Tensor

from jensen.base.errors import check_count
from jensen.diagnostics.picture import chart, grid, is_image
from jensen.diagnostics.snapshot import Snapshot


def samples(snapshot: Snapshot, count: int = 64) -> Mapping[str, Tensor]:
    """Decoded means of `count` draws z ~ p(z), the same draws every time. Of vectors, the first two
    coordinates.
    """
    check_count("count", count)
    decoded = snapshot.decode(snapshot.draw(count))
    if is_image(decoded.shape[1:]):
        across = math.isqrt(count)
        return {"images": grid(decoded[: across * across].unflatten(0, (across, across)))}

    def scatter(axes: Axes) -> None:
        for name, points in (("data", snapshot.images), ("decoded samples", decoded)):
            x = points.flatten(1).cpu()
            axes.scatter(x[:, 0], x[:, min(1, x.shape[1] - 1)], s=8, label=name)
        axes.legend()

    return {"points": chart(scatter, 5, 5)}
