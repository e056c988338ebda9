"""Products with packed weights are the products with the weights."""

from __future__ import annotations

import pytest
import torch

from fairprefix.gpu_ref_engine import products
from fairprefix.gpu_ref_engine.products import Product


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 5, 16, 130])
def test_packing_changes_nothing(dtype: torch.dtype, rows: int, *, biased: bool) -> None:
    """Packed or not, with a bias or without, for any number of rows, a product is torch's."""
    generator = torch.Generator().manual_seed(rows)
    matrix, values, bias = (torch.randn(size, generator=generator) for size in ((70, 48), (rows, 48), (70,)))
    given = bias.to(dtype) if biased else None
    found = Product.of(matrix.to(dtype), given)(values.to(dtype))
    expected = torch.nn.functional.linear(
        values.to(dtype).double(), matrix.to(dtype).double(), given.double() if given is not None else None
    )
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=5 * tolerance)


def test_where_nothing_can_be_packed_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of torch without oneDNN, or a type that it does not pack, falls back to plain products."""
    assert not Product.of(torch.ones(4, 4, dtype=torch.float16), None).packed
    products._packs.cache_clear()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    plain = Product.of(torch.eye(4), None)
    products._packs.cache_clear()
    assert not plain.packed
    assert plain(torch.ones(2, 4)).tolist() == torch.ones(2, 4).tolist()
