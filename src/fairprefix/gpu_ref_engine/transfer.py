"""Arrays of the host to the device and back, without waiting: through pinned memory where it is a GPU.

Torch's allocator of pinned memory does not reuse a block before the copies from it are done: nobody else has to
wait for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array on the device; on a CPU it shares the array's memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def all_to_device(arrays: Sequence[NDArray[np.int64]], device: torch.device) -> Sequence[Tensor]:
    """Return flat arrays on the device, by a single copy."""
    if device.type != "cuda":
        return [to_device(one, device) for one in arrays]
    return torch.split(to_device(np.concatenate(arrays), device), [len(one) for one in arrays])


def pinned(values: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array in host memory from which the device can copy by itself."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory() if device.type == "cuda" else tensor


def to_host(tensor: Tensor) -> Tensor:
    """Return a copy in host memory, which is complete once the device's stream has come this far."""
    if tensor.device.type != "cuda":
        return tensor
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)


def mark(device: torch.device) -> torch.cuda.Event | None:
    """Return an event that happens once the device has done all it was given so far; None: it has already."""
    if device.type != "cuda":
        return None
    event: torch.cuda.Event = torch.cuda.Event()
    event.record()
    return event
