"""Memory that a computation allocates, counted operation by operation; no numbers are needed.

On the meta device tensors have shapes and no memory, so that the full size is counted on any
machine.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class AllocationCounter(TorchDispatchMode):
    """Counts bytes of tensors made while it is entered, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation; what it made that shares no memory with its inputs is new."""
        kwargs = kwargs or {}
        given = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _storage(leaf) not in given:
                self._add(leaf)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        size = storage.nbytes()

        def freed(_: Any) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class FusedAttention(TorchFunctionMode):
    """Attention as fused kernels compute it: its scores are never held (arXiv 2205.14135)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace attention by its output and the sums of its scores."""
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, _, value = [*args, *(kwargs or {}).values()][:3]
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        del sums
        return output


@torch.no_grad()
def peak_bytes(computation: Callable[[], Any]) -> int:
    """The most that a computation holds at once beside what was there before, result included.

    Args:
        computation: without gradients; on the meta device its attention counts as fused.
    """
    with FusedAttention(), AllocationCounter() as counter:
        result = computation()
    del result
    return counter.peak


def weight_bytes(network: torch.nn.Module) -> int:
    """Of parameters and buffers."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
