"""Chat templates: what they may do, and what their errors become."""

from __future__ import annotations

import pytest

from penstock.errors import InputError
from penstock.llm.template import render

USER = [{"role": "user", "content": "hi"}]


def test_messages_and_special_tokens() -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}\n  [{{ m.role }}] {{ m['content'] | trim }}\n"
        "{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    assert render(template, USER, {"bos_token": "<s>"}) == "<s>  [user] hi\n>"


def test_a_template_may_refuse() -> None:
    with pytest.raises(InputError, match="refuses the messages: no system"):
        render("{{ raise_exception('no system') }}", USER, {})


@pytest.mark.parametrize(
    "template", ["{% for %}", "{{ messages[3].content.x }}", "{{ ''.__class__.__mro__ }}{{ 1/0 }}"]
)
def test_broken_templates(template: str) -> None:
    with pytest.raises(InputError, match="chat template fails"):
        render(template, USER, {})
