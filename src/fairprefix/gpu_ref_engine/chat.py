"""Chat templates: Jinja2 in a sandbox, since they come with the model from who knows where."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NoReturn

from attrs import field, frozen

from fairprefix.gpu_ref_engine.errors import ModelError, need

CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{{- '<|im_start|>assistant\\n' }}"""
"""For models that come without a template."""


@frozen(eq=False)
class ChatTemplate:
    """From a conversation to the text that a model was trained to continue.

    Raises:
        ModelError: the template is not valid.
    """

    source: str
    specials: Mapping[str, str] = field(factory=dict)
    """Text of `bos_token`, `eos_token` and so on, which templates may refer to."""
    _template: Any = field(init=False, repr=False)

    @_template.default
    def _compiled(self) -> Any:  # noqa: ANN401 (an extra's type)
        jinja2, sandbox = need("jinja2", "engine"), need("jinja2.sandbox", "engine")
        environment = sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        try:
            return environment.from_string(self.source)
        except jinja2.TemplateError as problem:
            raise ModelError(f"the model's chat template is not valid: {problem}") from None

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the text of a conversation, ready for the model's answer.

        Raises:
            ModelError: the template does not take these messages.
        """
        try:
            return str(
                self._template.render(
                    messages=[dict(one) for one in messages], add_generation_prompt=True, **self.specials
                )
            )
        except ModelError:
            raise
        except Exception as problem:  # noqa: BLE001 (whatever a template runs into)
            raise ModelError(f"the model's chat template does not take these messages: {problem}") from None


def _to_json(value: object, indent: int | None = None) -> str:
    """Return JSON without the escapes for HTML that Jinja2's own filter adds."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise ModelError(f"the model's chat template does not take these messages: {message}")


def _now(form: str) -> str:
    return datetime.now(timezone.utc).strftime(form)
