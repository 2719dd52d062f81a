"""Chat templates are programs that come with a model: they fail, or never end."""

import time

import pytest

import tiny
from headway.text import tags
from headway.types import HeadwayError

FAILING = [
    "{{ raise_exception('no') }}", "{{ 1 / 0 }}", "{% for", "{{ messages.nothing.at.all }}", "{{ 'a' + 1 }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ ''.__class__.__mro__ }}", "{% include 'x' %}",
    "{{ 1 | nofilter }}",
]  # fmt: skip
ENDLESS = (
    "{% for i in range(99999) %}{% for j in range(99999) %}{% if i * j == -1 %}x{% endif %}{% endfor %}{% endfor %}"
)


@pytest.mark.parametrize("template", FAILING)
def test_a_template_that_fails_is_one_message(template: str) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(HeadwayError, match="chat template fails") as raised:
        tags.templated(tokenizer, "1 + 1?")
    assert "\n" not in str(raised.value)


def test_a_template_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "RENDER_SECONDS", 0.2)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = ENDLESS
    began = time.process_time()
    with pytest.raises(HeadwayError, match="it takes more than"):
        tags.templated(tokenizer, "1 + 1?")
    assert time.process_time() - began < 20  # whole it takes minutes
    tokenizer.chat_template = "{{ messages[0].content }}"
    assert tags.templated(tokenizer, "1 + 1?") == "1 + 1?"  # no alarm is left behind
