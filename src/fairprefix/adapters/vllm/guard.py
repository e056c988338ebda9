"""What keeps an error of ours away from the engine: an exception in a scheduler would end every request."""

from __future__ import annotations

from collections.abc import Callable


class Shield:
    """Runs what may fail; after the first failure it runs nothing any more.

    Args:
        on_error: told of the failure, once.
    """

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self.errors: int = 0
        self._on_error = on_error

    @property
    def down(self) -> bool:
        """Whether something has failed."""
        return self.errors > 0

    def run(self, call: Callable[..., object], *args: object, **named: object) -> None:
        """Call, unless something has failed before."""
        if not self.errors:
            try:
                call(*args, **named)
            except Exception as problem:  # noqa: BLE001 (whatever it is, the engine must go on)
                self.fail(problem)

    def fail(self, problem: Exception) -> None:
        """Note a failure."""
        self.errors += 1
        if self.errors == 1:
            self._on_error(problem)
