"""Stands in for SGLang's kernels, made for GPUs and some CPUs: everything can be imported, nothing called.

SGLang's CPU engine imports names from here when it starts; without the vector extensions that those kernels need,
it computes every layer in plain torch and calls none of them.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Missing:
    """A kernel that is not there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Missing:
        """Return one of its attributes, which is missing as well."""
        if name.startswith("__"):
            raise AttributeError(name)
        return Missing(f"{self._name}.{name}")

    def __call__(self, *_args: object, **_kwargs: object) -> Any:
        """Raise."""
        raise NotImplementedError(f"{self._name} is a kernel that this stub does not have")


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Missing:
        if name.startswith("__"):
            raise AttributeError(name)
        return Missing(f"{self.__name__}.{name}")


class _Submodules(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname.startswith("sgl_kernel.") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it empty."""


__version__ = "0"
sys.meta_path.append(_Submodules())


def __getattr__(name: str) -> Missing:
    if name.startswith("__"):
        raise AttributeError(name)
    return Missing(f"sgl_kernel.{name}")
