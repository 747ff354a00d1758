"""Chat templates: what they may do, and what their errors become."""

from __future__ import annotations

import pytest

from penstock.errors import InputError, OutOfMemoryError
from penstock.llm.template import render

USER = [{"role": "user", "content": "hi"}]


def test_messages_and_special_tokens() -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}\n  [{{ m.role }}] {{ m['content'] | trim }}\n"
        "{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    assert render(template, USER, {"bos_token": "<s>"}) == "<s>  [user] hi\n>"


def test_what_transformers_has_too() -> None:
    template = (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
        "{{ {'b': 'é', 'a': 1} | tojson(sort_keys=true, separators=(',', ':')) }}"
    )
    assert render(template, USER, {}) == 'hi{"a":1,"b":"é"}'


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def test_tools_and_their_calls() -> None:
    template = (
        "{% for t in tools or [] %}{{ t | tojson }};{% endfor %}{% for m in messages %}"
        "{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function.name }}"
        "{{ c.function.arguments | tojson }}{% endfor %}{% else %}{{ m.role }}={{ m.content }}"
        "{% endif %},{% endfor %}"
    )
    for called in ({"tool_calls": [CALL]}, {"content": None, "tool_calls": [CALL]}):
        messages = [*USER, {"role": "assistant", **called}, {"role": "tool", "content": "3"}]
        found = render(template, messages, {}, [TOOL])
        said = (
            '{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}};'
        )
        assert found == said + 'user=hi,add{"a": 1},tool=3,'
    assert render(template, USER, {}) == "user=hi,"
    with pytest.raises(InputError, match="tools must be a list like"):
        render(template, USER, {}, ["add"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="message 0 must have a 'role' and a 'content'"):
        render(template, [{"role": "assistant", "tool_calls": []}], {})


def test_a_template_may_refuse() -> None:
    with pytest.raises(InputError, match="refuses the messages: no system"):
        render("{{ raise_exception('no system') }}", USER, {})


@pytest.mark.parametrize(
    "template",
    [
        "{% for %}", "{{ messages[3].content.x }}", "{{ ''.__class__.__mro__ }}", "{{ 1 / 0 }}",
        "{% break %}", "{{ 'a'.encode('rot13') }}", "{{ messages|slice(0)|list }}",
        "{{ raise_exception() }}", "{{ '\ud800'.encode() }}", "{{ (10**400)|int|float }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ messages.append(1) }}",
        "{% generation %}", "{{ messages[0].content | tojson(indent='x', separators=1) }}",
    ],
)  # fmt: skip
def test_broken_templates(template: str) -> None:
    """They are programs, and may fail with any error of Python's."""
    with pytest.raises(InputError, match="chat template fails: ."):
        render(template, USER, {})


def test_what_a_template_says_is_one_line() -> None:
    with pytest.raises(InputError, match="refuses the messages") as caught:
        render("{{ raise_exception('\x1b[31m\n' * 9999) }}", USER, {})
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


def test_a_template_that_takes_too_much_memory() -> None:
    with pytest.raises(OutOfMemoryError, match="chat template"):
        render("{{ 'a' * (2**62) }}", USER, {})
