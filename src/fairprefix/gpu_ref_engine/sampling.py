"""How the next tokens of a request are chosen, and when it stops."""

from __future__ import annotations

from attrs import frozen

from fairprefix.core.errors import at_least, reject

_MOST_LOGPROBS = 20


@frozen(kw_only=True)
class SamplingParams:
    """Sampling parameters of one request, with OpenAI's names and meanings.

    Raises:
        ConfigError: a value is outside its range.
    """

    max_tokens: int = 16
    temperature: float = 1.0
    """0: greedy."""
    top_k: int = 0
    """Sample among so many tokens; 0: among all."""
    top_p: float = 1.0
    seed: int | None = None
    """With a seed, the same request gives the same output, whatever else runs beside it."""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    """So many of the likeliest tokens are reported beside the one chosen; None: no log-probabilities at all."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        at_least("max_tokens", self.max_tokens, 1)
        at_least("top_k", self.top_k, 0)
        if not 0 <= self.temperature <= 2:  # noqa: PLR2004 (OpenAI's range)
            raise reject("temperature", self.temperature, "a number from 0 to 2")
        if not 0 < self.top_p <= 1:
            raise reject("top_p", self.top_p, "a number above 0, at most 1")
        if self.logprobs is not None and not 0 <= self.logprobs <= _MOST_LOGPROBS:
            raise reject("logprobs", self.logprobs, f"an integer from 0 to {_MOST_LOGPROBS}")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0
