"""Chat templates: the text that a model was taught to read a conversation in, from the Jinja template it comes with."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..arguments import text_of
from ..errors import InputError

__all__ = ["ChatTemplate"]

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class ChatTemplate:
    """A template.

    Attributes
    ----------
    source : str
        In Jinja, as transformers writes it.
    tokens : dict of str
        What it may name: ``bos_token``, ``eos_token`` and the like.
    """

    source: str
    tokens: Mapping[str, str] = field(default_factory=dict)

    def text(self, messages: Sequence[Mapping[str, str]], *, answer: bool = True) -> str:
        """A conversation as text, with the beginning of the answer behind it if `answer`.

        Parameters
        ----------
        messages : sequence of dict with ``role`` (system, user, assistant) and ``content``

        Raises
        ------
        InputError
            If a message has no role or content, or the template cannot be read, or refuses the conversation.
        """
        for number, message in enumerate(messages, 1):
            if not isinstance(message, Mapping) or not message.keys() >= {"role", "content"}:
                raise InputError(f"message {number} of the conversation has no role and content, which are texts.")
            for key in ("role", "content"):
                text_of(message[key], f"{key} of message {number}")
        from jinja2 import TemplateError
        from jinja2.exceptions import SecurityError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        # As transformers renders them: no code outside the template, blocks take no lines.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
        environment.globals |= {
            "raise_exception": refuse, "strftime_now": lambda form: datetime.datetime.now().strftime(form),
        }  # fmt: skip
        given: dict[str, Any] = {
            "messages": list(messages), "add_generation_prompt": answer, "tools": None, "documents": None, **self.tokens
        }  # fmt: skip
        try:
            return environment.from_string(self.source).render(**given)
        except (
            TemplateError, SecurityError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError,
            RecursionError,
        ) as error:  # fmt: skip
            raise InputError(f"the model's chat template does not take the conversation: {error}.") from error
