"""How much Hypothesis tries: HYPOTHESIS_PROFILE is "default", "nightly" (thorough) or "mutation" (quick).

All but "nightly" are reproducible: they try the same examples each time.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "default",
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly",
    deadline=None,
    max_examples=20_000,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow],
)
# A mutant has to be noticed, not understood: no example is shrunk.
settings.register_profile(
    "mutation",
    deadline=None,
    max_examples=50,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
