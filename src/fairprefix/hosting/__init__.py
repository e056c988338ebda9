"""What every host of a policy needs beside the policy: configuration, a guard, live figures, client identity.

A host (an engine, an adapter, a gateway) builds one `HostedPolicy` and calls it like any `Policy`.
"""

from fairprefix.hosting.figures import Figures, Sample
from fairprefix.hosting.hosted import HostedPolicy
from fairprefix.hosting.identity import Identity, clean_name
from fairprefix.hosting.settings import host_config, is_configured

__all__ = ["Figures", "HostedPolicy", "Identity", "Sample", "clean_name", "host_config", "is_configured"]
