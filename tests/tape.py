"""A stand-in on the CPU for the capture of a CUDA graph: the operations on tensors of one run, again
and again on the same memory.

As with a graph what Python decided stays as it was, a tensor that was made keeps its place, and
asking the device for a value, or bringing one to it, is refused.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ASKS = {
    "_local_scalar_dense": "a value was asked for",
    "_linalg_check_errors": "whether there was an error was asked for",
    "nonzero": "the size of a result was asked for",
    "equal": "whether tensors are equal was asked for",
    "lift_fresh": "a number was brought from the host",
}


def places(tree):
    """Where the tensors of a tree lie."""
    return {
        each.untyped_storage().data_ptr() for each in tree_leaves(tree) if torch.is_tensor(each)
    }


def shares(found, given):
    """Tell whether what was found is a view of what was given, which follows by itself."""
    return bool(places(found) & places(given))


class Tape(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        masked = name == "index" and any(
            each is not None and each.dtype == torch.bool for each in args[1]
        )
        if masked or name in ASKS:
            why = ASKS["nonzero" if masked else name]
            raise RuntimeError(f"operation not permitted when stream is capturing: {why}")
        found = func(*args, **kwargs)
        if func._schema.is_mutable or not shares(found, (args, kwargs)):
            self.operations.append((func, args, kwargs, found))
        return found

    def replay(self):
        for func, args, kwargs, found in self.operations:
            again = func(*args, **kwargs)
            if not func._schema.is_mutable:
                for old, new in zip(tree_leaves(found), tree_leaves(again), strict=True):
                    if torch.is_tensor(old):
                        old.copy_(new)


def taped(run):
    """A `Capture`: the tape of one run, to be played."""
    tape = Tape()
    with tape:
        run()
    return tape.replay
