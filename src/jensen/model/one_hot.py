"""p(x|z) of a choice of one of C, which is given one-hot."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from jensen.base.errors import InputError
from jensen.model.choice import choose, sharpened


class OneHot(nn.Module):
    """A class of C, x `(B, C)` one-hot; the output is its logits.

    >>> round(OneHot().distortion(torch.zeros(1, 4), torch.eye(4)[:1]).item(), 4)  # log 4
    1.3863
    """

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        wide = output.to(torch.promote_types(output.dtype, torch.float32))
        return -(x * wide.log_softmax(-1)).flatten(1).sum(1)

    def mean(self, output: Tensor) -> Tensor:
        """The probabilities of the classes."""
        return output.softmax(-1)

    def sample(
        self,
        output: Tensor,
        key: int,
        index: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """One-hot classes, `(B, C)`."""
        log_p = sharpened(output, temperature, top_k, top_p)
        return one_hot(choose(log_p, key, index), output.shape[-1]).to(output)

    def check(self, x: Tensor) -> None:
        hot = (x == 1).sum(-1)
        if not bool((((x == 0) | (x == 1)).all(-1) & (hot == 1)).all()):
            raise InputError(
                "a one-hot likelihood takes x that is 1 in one place and 0 elsewhere, but the data"
                " hold others: expected classes; number them, or use another likelihood"
            )
