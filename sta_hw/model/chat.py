"""Chat templates: the text that a model was taught to read a conversation in, from the Jinja template it comes with."""

from __future__ import annotations

import datetime
import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..arguments import text_of
from ..errors import InputError

__all__ = ["ChatTemplate"]

_ROLES = ("system", "user", "assistant")
_LONGEST = 100_000
"""Characters of a template; those of models have some thousand."""
_SECONDS = 2.0
"""Of a processor that a template may take: one of a model takes a hundredth of a second."""
_BYTES = 1 << 28
"""Of memory that a template may take beyond what is taken."""
_DIGITS = 10_000
"""Bits of a number that templates compute."""
_LOCK = threading.Lock()


class _EndlessError(BaseException):
    """A template took too long. No exception that Jinja would keep for itself, as it does while it computes ahead."""


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
            If a message has no role or content, or the template cannot be read, refuses the conversation, or takes
            more time or memory than any template needs.
        """
        for number, message in enumerate(messages, 1):
            if not isinstance(message, Mapping) or not message.keys() >= {"role", "content"}:
                raise InputError(f"message {number} of the conversation has no role and content, which are texts.")
            for key in ("role", "content"):
                text_of(message[key], f"{key} of message {number}")
            if message["role"] not in _ROLES:
                raise InputError(f"role of message {number} is {message['role'][:60]!r}; it is {', '.join(_ROLES)}.")
        if len(self.source) > _LONGEST:
            raise InputError(
                f"the model's chat template has {len(self.source):,} characters; at most {_LONGEST:,} are read."
            )
        environment = _environment()
        given: dict[str, Any] = {
            "messages": list(messages), "add_generation_prompt": answer, "tools": None, "documents": None, **self.tokens
        }  # fmt: skip
        try:
            with _bounded():
                return str(environment.from_string(self.source).render(**given))
        except _EndlessError:
            why = f"it takes more than {_SECONDS:g} s"
        except MemoryError:
            why = f"it takes more than {_BYTES >> 20} MB"
        except Exception as error:  # Whatever it is (Jinja makes code of it), the template, which is data, is wrong.
            why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise InputError(f"the model's chat template does not take the conversation: {why}.")


def _environment() -> Any:
    """Where templates are rendered as transformers does: no code outside the template, blocks take no lines."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            """As Jinja does, but for numbers that take for ever: nothing interrupts a single product."""
            if isinstance(left, int) and isinstance(right, int):
                bits = left.bit_length() * max(right, 1) if operator == "**" else left.bit_length() + right.bit_length()
                if bits > _DIGITS:
                    raise OverflowError(f"{operator} gives a number of more than {_DIGITS:,} bits")
            return super().call_binop(context, operator, left, right)

    class Generation(Extension):
        """``{% generation %}``: it marks what a model is trained to say, and has no effect on the text."""

        def __init__(self, environment: Any) -> None:
            super().__init__(environment)
            self.tags = {"generation"}

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Callable[[], str]) -> str:
            return caller()

    def tojson(
        value: object, ensure_ascii: bool = False, indent: int | None = None,
        separators: tuple[str, str] | None = None, sort_keys: bool = False,
    ) -> str:  # fmt: skip
        """As transformers has it: for people, and not for a page in HTML."""
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def refuse(message: object = "it says no reason") -> None:
        raise TemplateError(str(message))

    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": refuse, "strftime_now": lambda form: datetime.datetime.now().strftime(form),
    }  # fmt: skip
    return environment


@contextmanager
def _bounded() -> Iterator[None]:
    """Little time and memory for what runs within: whatever runs too long in Python ends in `_EndlessError`."""
    end, before = time.thread_time() + _SECONDS, sys.gettrace()

    def traced(frame: Any, event: str, argument: object) -> Any:
        if time.thread_time() > end:
            raise _EndlessError
        return traced if frame.f_code.co_filename == "<template>" else None

    sys.settrace(traced)
    try:
        with _little_memory():
            yield
    finally:
        sys.settrace(before)


@contextmanager
def _little_memory() -> Iterator[None]:
    """`_BYTES` more than the process has, where the system tells what that is; one thread at a time sets it."""
    with _LOCK:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = soft
        with suppress(OSError, ValueError, IndexError):
            used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
            most = used + _BYTES if soft == resource.RLIM_INFINITY else min(used + _BYTES, soft)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
