"""Lets SGLang be imported without a GPU: torchvision's wheel is linked against CUDA, so its operators do not load.

Python runs this at start-up in every process that has this folder on PYTHONPATH. Declaring the two operators that
torchvision registers shapes for is all that its import needs.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from typing import Any

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class DeclareOperators(MetaPathFinder):
    """Declares the operators right before torchvision is imported, and finds nothing itself."""

    def __init__(self) -> None:
        self._library: Any = None

    def find_spec(self, fullname: str, _path: object = None, _target: object = None) -> None:
        """Act on the first import of torchvision."""
        if fullname == "torchvision" and self._library is None:
            torch: Any = import_module("torch")
            self._library = torch.library.Library("torchvision", "DEF")
            for operator in _OPERATORS:
                self._library.define(operator)


sys.meta_path.insert(0, DeclareOperators())
