"""Sprites with a caption: some of their factors as modalities of their own, no download."""

from collections.abc import Sequence

from jensen.base.errors import InputError, check_choice, check_list
from jensen.data.captioned import captioned
from jensen.data.examples import Examples
from jensen.data.sprites import Values, sprites


def sprites_caption(
    caption: Sequence[str] = ("shape", "scale"),
    factors: Sequence[str] | None = None,
    size: int | None = None,
    seed: int = 0,
    values: Values | None = None,
) -> Examples:
    """Images of sprites and the factors of `caption`, `(N, 64 * 64 + ...)`: the image flattened,
    each factor one-hot.

    Args:
        caption: factors that vary, in the order of the modalities.
        factors, size, seed, values: see `data.sprites.sprites`.

    Raises:
        InputError: what `sprites` raises, or a caption of what does not vary.

    >>> sprites_caption(["shape"], size=10).first().stored.shape  # packed
    torch.Size([1, 513])
    """
    examples = sprites(factors, size, seed, values)
    check_list("caption", caption)
    for name in caption:
        check_choice("caption", name, examples.names)
    if not caption or len({*caption}) < len(caption):
        raise InputError(
            f"caption is {[*caption]}: expected different factors, of {', '.join(examples.names)}"
        )
    return captioned(examples, [examples.names.index(name) for name in caption])
