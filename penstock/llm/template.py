"""Chat templates: messages to a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from penstock.errors import (
    BackendUnavailableError,
    InputError,
    OutOfMemoryError,
    install_hint,
    shorten,
)

ROLES = ("system", "user", "assistant", "tool")

Message = Mapping[str, Any]
#: A function that a model may call, as JSON: its name, what it does and a schema of its arguments.
Tool = Mapping[str, Any]


def render(
    template: str,
    messages: Sequence[Message],
    special_tokens: Mapping[str, str],
    tools: Sequence[Tool] | None = None,
) -> str:
    """The prompt for ``messages``, up to where the answer begins, of a model that may call
    ``tools``.

    Raises :class:`InputError` for messages that make no sense, or that the template refuses, or
    fails with; :class:`OutOfMemoryError` where it takes too much memory;
    :class:`BackendUnavailableError` where jinja2 is not installed.
    """
    check(messages, tools)
    try:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"chat templates need jinja2, which is not installed: {install_hint('llm')}"
        ) from error
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _generation_blocks()],
    )  # fmt: skip
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(template).render(
            messages=[dict(message) for message in messages],
            add_generation_prompt=True,
            tools=None if tools is None else list(tools),
            **special_tokens,
        )
    except _Refused as error:
        raise InputError(
            f"the model's chat template refuses the messages: {shorten(error, 500)}"
        ) from error
    except MemoryError as error:
        raise OutOfMemoryError(
            "the model's chat template takes more memory than there is; use another"
        ) from error
    except Exception as error:  # it is a program: it can divide by zero, and so on
        raise InputError(
            f"the model's chat template fails: {shorten(error) or type(error).__name__}"
        ) from error


def check(messages: Sequence[Message], tools: Sequence[Tool] | None = None) -> None:
    """Raises :class:`InputError` unless each message has a role and a content, both known, or is a
    model's call of tools, which needs no content."""
    if tools is not None and (
        isinstance(tools, (str, bytes, Mapping))
        or not isinstance(tools, Sequence)
        or not all(isinstance(tool, Mapping) for tool in tools)
    ):
        raise InputError(
            "tools must be a list like [{'type': 'function', 'function': {'name': '…', "
            f"'parameters': {{…}}}}}}], not {shorten(repr(tools))}"
        )
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InputError(
            f"messages must be a list like [{{'role': 'user', 'content': '…'}}], not a "
            f"{type(messages).__name__}"
        )
    if not messages:
        raise InputError("there are no messages; give at least one of the role 'user'")
    for number, message in enumerate(messages):
        calls = isinstance(message, Mapping) and bool(message.get("tool_calls"))
        needed = {"role"} if calls else {"role", "content"}
        if not isinstance(message, Mapping) or not needed <= set(message):
            raise InputError(f"message {number} must have a 'role' and a 'content': {message!r}")
        if message["role"] not in ROLES:
            raise InputError(
                f"message {number} has the role {message['role']!r}; the roles are "
                f"{', '.join(ROLES)}"
            )
        if calls and message.get("content") is None:
            continue
        if not isinstance(message["content"], str):
            raise InputError(
                f"message {number} has a {type(message['content']).__name__} as its content, "
                "not a text"
            )


class _Refused(Exception):
    """What a template raises by itself."""


def _refuse(reason: str) -> None:
    raise _Refused(reason)


@cache
def _generation_blocks() -> type[Any]:
    """Templates may put what the model says into ``generation`` blocks, for who trains on it."""
    from jinja2.ext import Extension

    class GenerationBlocks(Extension):
        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return GenerationBlocks


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    import json

    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
