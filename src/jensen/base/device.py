"""Numbers of the host sent to a device."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def sent(values: Tensor | Sequence[Any], device: torch.device | str) -> Tensor:
    """The values on a device.

    To a GPU they are sent from memory that it reads by itself: from other memory the host waits
    until all is done that was asked of the device before.

    Example:
        >>> sent([1, 2], "cpu")
        tensor([1, 2])
    """
    values = torch.as_tensor(values)
    if torch.device(device).type != "cuda" or values.is_cuda:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
