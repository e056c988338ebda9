"""A policy of this library inside a stock SGLang, through SGLang's own plugin system.

`register` is the entry point `fairprefix` of the group `sglang.srt.plugins`. SGLang calls it in each of its
processes; unless FAIRPREFIX_CONFIG or FAIRPREFIX_POLICY is set, it does nothing. See docs/integrate/sglang.md.
"""

from fairprefix.adapters.sglang.register import register

__all__ = ["register"]
