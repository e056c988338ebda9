"""What service costs, and the receipt that every charge returns.

Service is W = w_e * extend tokens + w_q * output tokens (DLPM, arXiv 2501.14312, Table 1). *Extend* tokens are
the prompt tokens that had to be computed: the prompt minus its cached prefix. All amounts are integers.
"""

from __future__ import annotations

from typing import NamedTuple

from attrs import field, frozen

from fairprefix.core.errors import at_least
from fairprefix.core.request import Client


@frozen
class CostWeights:
    """Weights of the cost function, in service units per token."""

    extend: int = field(default=1)
    """w_e: one extend token."""
    output: int = field(default=2)
    """w_q: one output token."""

    def __attrs_post_init__(self) -> None:
        """Refuse a negative weight, and a cost function that charges nothing at all."""
        at_least("cost_extend", self.extend, 0)
        at_least("cost_output", self.output, 0)
        at_least("cost_extend + cost_output", self.extend + self.output, 1)

    def service(self, extend: int, output: int) -> int:
        """Return the service units of `extend` and `output` tokens."""
        return self.extend * extend + self.output * output


class Receipt(NamedTuple):  # one is made for every admission: as a frozen class it would take twice the time
    """What one admission was charged: hand it back to amend or to refund the charge.

    An amendment returns a new receipt and voids the old one, so that nothing is ever settled twice.
    """

    request: str
    client: Client
    serial: int
    """Number of the charge within its policy; a voided receipt is recognised by it."""
    extend: int
    """Extend tokens that were computed for this admission."""
    reserve: int
    """Output tokens that the request may still produce under this admission."""
    charged: int
    """Service units taken from the client's account."""
