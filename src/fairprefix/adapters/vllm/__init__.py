"""Fair scheduling inside an unmodified vLLM, by two flags of its command line.

    vllm serve MODEL --scheduler-cls fairprefix.adapters.vllm.FairScheduler \
                     --middleware fairprefix.adapters.vllm.ClientIdMiddleware

Installing the package changes nothing, and importing this module does not import vLLM.
"""

from fairprefix.adapters.vllm.dispatcher import FairScheduler
from fairprefix.adapters.vllm.middleware import ClientIdMiddleware

__all__ = ["ClientIdMiddleware", "FairScheduler"]
