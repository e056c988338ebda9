"""`ray.serve.llm` with D2LPM between its replicas and DLPM in front of each engine.

    from ray.serve.llm import LLMConfig, build_openai_app
    from fairprefix.adapters.ray.llm import fair_llm

    config = fair_llm(LLMConfig(model_loading_config=..., engine_kwargs=...), SETTINGS)
    serve.run(build_openai_app({"llm_configs": [config]}))

or, from a file of Serve's, `import_path: fairprefix.adapters.ray.llm:build_openai_app` in place of
`ray.serve.llm:build_openai_app`, with the settings as a further argument `fairprefix`.

Needs Ray's extra `llm`; whatever engine it runs, vLLM or SGLang, is not changed.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from ray.serve import llm
from ray.serve.llm.deployment import LLMServer

from fairprefix.adapters.ray.answers import noted, with_usage
from fairprefix.adapters.ray.key import key_in
from fairprefix.adapters.ray.options import fair_options
from fairprefix.adapters.ray.replica import FairReplica
from fairprefix.adapters.ray.settings import LedgerSettings
from fairprefix.core.errors import FairprefixError
from fairprefix.hosting.identity import Identity

__all__ = ["FairLLMServer", "build_openai_app", "fair_llm"]

_SETTINGS = "fairprefix"
"""Under which name the settings travel in a configuration's `experimental_configs`."""
_DIRECT = "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING"
_TOLD = {"window": "max_num_seqs", "longest_input": "max_model_len", "longest_output": "max_model_len"}
"""Our settings, and the engine's arguments that say the same."""


class FairLLMServer(FairReplica, LLMServer):  # type: ignore[misc]  # Ray is not typed here
    """Ray's server of a model, with a gate: completions and chats take turns, all else goes straight through."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        llm_config: llm.LLMConfig,
        **named: Any,  # noqa: ANN401 (Ray's)
    ) -> None:
        """Start the engine, and stand in front of it."""
        settings = LedgerSettings.from_mapping(llm_config.experimental_configs.get(_SETTINGS, {}))
        self._identity = Identity(settings.policy.identity)
        self._block_size = settings.router.block_size
        self.fair(settings)
        await LLMServer.__init__(self, llm_config, **named)

    async def chat(self, request: Any, raw_request_info: Any = None) -> AsyncGenerator[Any, None]:  # noqa: ANN401
        """Answer a chat when its turn has come."""
        return self._in_turn(request, raw_request_info, super().chat)

    async def completions(self, request: Any, raw_request_info: Any = None) -> AsyncGenerator[Any, None]:  # noqa: ANN401
        """Answer a completion when its turn has come."""
        return self._in_turn(request, raw_request_info, super().completions)

    async def _in_turn(
        self,
        request: Any,  # noqa: ANN401 (Ray's)
        raw: Any,  # noqa: ANN401 (Ray's)
        answer: Callable[..., Awaitable[AsyncGenerator[Any, None]]],
    ) -> AsyncGenerator[Any, None]:
        key = key_in([request, raw], self._identity, block_size=self._block_size)
        if key is None:  # a kind of prompt that the router could not read either
            async for item in await answer(request, raw):
                yield item
            return
        asked, wants_usage = with_usage(request)
        async with self.turn(key) as turn:
            async for item in await answer(asked, raw):
                if isinstance(item, list):  # what came within some milliseconds
                    passed = [one for one in item if noted(turn, one, wants_usage=wants_usage)]
                    if passed:
                        yield passed
                elif noted(turn, item, wants_usage=wants_usage):
                    yield item


def fair_llm(config: llm.LLMConfig, settings: LedgerSettings | Mapping[str, Any] | None = None) -> llm.LLMConfig:
    """Return a model's configuration with a fair router, a ledger, and gates.

    Args:
        config: Ray's. What its `deployment_config` says goes before ours.
        settings: see `LedgerSettings`. Where they say nothing of it, `window` is the engine's `max_num_seqs`, and
            `longest_input` and `longest_output` its `max_model_len`.

    Raises:
        ConfigError: a setting is not valid.
        FairprefixError: Ray's direct streaming is on, which knows no server that could have a gate.
        MissingRayError: Ray is too old.
    """
    if os.environ.get(_DIRECT, "") not in ("", "0"):
        raise FairprefixError(f"{_DIRECT} is set: requests would go past the gates; unset it")
    made = _settings(config, settings)
    values = {name: getattr(config, name) for name in config.model_fields_set} | {
        "server_cls": FairLLMServer,
        "deployment_config": fair_options(made, **config.deployment_config),
        "experimental_configs": {**config.experimental_configs, _SETTINGS: made.to_mapping()},
    }
    return type(config)(**values)


def _settings(config: llm.LLMConfig, given: LedgerSettings | Mapping[str, Any] | None) -> LedgerSettings:
    if isinstance(given, LedgerSettings):
        return given
    engine = config.engine_kwargs or {}
    told = {ours: engine[theirs] for ours, theirs in _TOLD.items() if isinstance(engine.get(theirs), int)}
    return LedgerSettings.from_mapping({**told, **(given or {})})


def build_openai_app(arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401 (an application)
    """Return what `ray.serve.llm.build_openai_app` does, with every model made fair.

    Args:
        arguments: those of Ray's function, and `fairprefix`: see `LedgerSettings`.
    """
    given = dict(arguments)
    settings = given.pop(_SETTINGS, None)
    configs = llm.LLMServingArgs(**given).llm_configs
    return llm.build_openai_app({**given, "llm_configs": [fair_llm(config, settings) for config in configs]})
