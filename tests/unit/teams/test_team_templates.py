"""Templates: what they see, what they give, what they may not touch, and that they end."""

import time
from typing import Any

import pytest

from interlock.agents.templates import (
    Reference,
    TemplateError,
    TemplateFailed,
    TemplateForbidden,
    TemplateInvalid,
    TemplateTooCostly,
    VariableMissing,
    evaluate,
    find_references,
    is_expression,
    references,
    render,
)
from interlock.protocol.base import Json

SCOPE: dict[str, Json] = {
    "goal": "learn",
    "inputs": {"documents": [{"path": "a.md", "text": "{{ 7*7 }}{% for %}"}], "items": [1, 2.5, None, True], "n": 3},
    "item": {"text": "Äpfel <b> & Birnen", "values": "mine"},
    "index": 0,
    "steps": {"s": {"outputs": [{"a": "x"}, {"a": "y"}], "failed": 1, "total": 3}},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("no template", "no template"),
        ("{{ item.text }}", "Äpfel <b> & Birnen"),
        ("{{ inputs.items }} {{ true }} {{ none }} {{ 1.5 }}", "[1, 2.5, null, true] true null 1.5"),
        ("{{ inputs.items | tojson }}", "[1, 2.5, null, true]"),
        ("{{ inputs.documents[0]['path'] }} {{ item.text[:5] }} {{ item.text[-1] }}", "a.md Äpfel n"),
        (
            "{% for s in steps.s.outputs %}{{ loop.index }}{{ s.a }}{% if not loop.last %}, {% endif %}{% endfor %}",
            "1x, 2y",
        ),
        ("{{ steps.s.outputs | map(attribute='a') | join('+') }}", "x+y"),
        ("{{ steps.s.outputs | selectattr('a', 'equalto', 'y') | list | length }}", "1"),
        ("{{ item.text.upper() }} {{ goal ~ 1 ~ [2] }}", "ÄPFEL <B> & BIRNEN learn1[2]"),
        ("{% set x = goal %}{% with y = x %}{{ y | title }}{% endwith %}", "Learn"),
        ("{{ item.title | default('none') }} {{ 'yes' if item.title is defined else 'no' }}", "none no"),
        ("{% raw %}{{ x }}{% endraw %}{# a comment #}", "{{ x }}"),
        (
            "{{ range(3) | list }} {{ 'a' * 3 }} {{ 2 ** 10 }} {{ 7 % 4 }} {{ [1] + [2] }}",
            "[0, 1, 2] aaa 1024 3 [1, 2]",
        ),
        ("{% for k, v in item.items() %}{{ k }} {% endfor %}{{ item.get('no', 'none') }}", "text values none"),
        ("a\n{% if goal %}\nb\n{% endif %}\nc", "a\nb\nc"),
    ],
)
def test_rendering(template: str, text: str) -> None:
    """Text stands as it is, unescaped; every other value stands as JSON."""
    assert render(template, SCOPE) == text


def test_keys_come_before_methods() -> None:
    """A value called ``items`` or ``values`` is found, though mappings have methods of these names."""
    assert evaluate("{{ inputs.items }}", SCOPE) == [1, 2.5, None, True]
    assert render("{{ item.values }}", SCOPE) == "mine"


@pytest.mark.parametrize(
    "template", ["{{ inputs.documents[0].text }}", "{{ inputs.documents | map(attribute='text') | join }}"]
)
def test_text_of_documents_is_never_a_template(template: str) -> None:
    """What looks like a template in a value stays as it is."""
    assert render(template, SCOPE) == "{{ 7*7 }}{% for %}"


def test_text_can_be_rendered_again_only_by_whoever_asks_for_it() -> None:
    """Rendering twice is two calls: the first leaves the braces of its values alone."""
    assert render(render("{{ '{{ goal }}' }}", SCOPE), SCOPE) == "learn"


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ inputs.documents }}", SCOPE["inputs"]["documents"]),  # type: ignore[call-overload, index]  # a mapping
        ("  {{ inputs.items }}\n", [1, 2.5, None, True]),
        ("{{ inputs.items | select('number') | list }}", [1, 2.5, True]),
        ("{{ steps.s.outputs | map(attribute='a') }}", ["x", "y"]),
        ("{{ {'a': (1, 2)} }}", {"a": [1, 2]}),
        ("{{ range(2) }}", [0, 1]),
        ("{{ inputs.n + 1 }}", 4),
        ("{{ item.keys() }}", ["text", "values"]),
        ("{{ inputs.n }} items", "3 items"),
        ("{{ inputs.n }}{{ inputs.n }}", "33"),
        ("plain", "plain"),
    ],
)
def test_evaluating(template: str, value: Json) -> None:
    """One expression gives its own value, as JSON; anything else gives text."""
    assert evaluate(template, SCOPE) == value


def test_a_value_is_a_copy() -> None:
    """Changing what came out changes nothing that other templates see."""
    value: Any = evaluate("{{ inputs.documents }}", SCOPE)
    value[0]["path"] = "changed"
    assert render("{{ inputs.documents[0].path }}", SCOPE) == "a.md"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ inputs.documents.append(1) }}",
        "{{ item.update({'a': 1}) }}",
        "{{ item.pop('text') }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ ''.format_map({}) }}",
        "{{ 'x%s' % 1 }}",
        "{{ range.__globals__ }}",
        "{{ ['x'] | map(attribute='__class__') | list }}",
        "{{ loop.__init__ }}{% for x in [1] %}{{ loop.__init__ }}{% endfor %}",
        "{{ self.__init__.__globals__ }}",
        "{{ ''.join(['a']) }}",
        "{{ ''.zfill(9) }}",
    ],
)
def test_templates_touch_nothing_but_values(template: str) -> None:
    """No attribute, method or operator leads out of the values, and none changes one."""
    with pytest.raises((TemplateForbidden, VariableMissing)):
        render(template, SCOPE)
    assert SCOPE["item"] == {"text": "Äpfel <b> & Birnen", "values": "mine"}


@pytest.mark.parametrize(
    ("template", "variable", "known"),
    [
        ("{{ item.txt }}", "item.txt", ("text", "values")),
        ("{{ nothing }}", "nothing", ()),
        ("{{ nothing.deeper }}", "nothing", ()),
        ("{{ steps.s.output }}", "steps.s.output", ("outputs", "failed", "total")),
        ("{{ inputs.documents[0].name | upper }}", "name", ("path", "text")),
        ("{{ nothing + 1 }}", "nothing", ()),
        ("{% for x in nothing %}{% endfor %}", "nothing", ()),
        ("{% if item.no %}{% endif %}", "item.no", ("text", "values")),
    ],
)
def test_a_missing_variable_is_named(template: str, variable: str, known: tuple[str, ...]) -> None:
    """The error says which variable is not there and which names are."""
    with pytest.raises(VariableMissing) as caught:
        evaluate(template, SCOPE)
    assert (caught.value.variable, caught.value.known, caught.value.template) == (variable, known, template.strip())
    assert repr(variable) in str(caught.value)


@pytest.mark.parametrize(
    ("template", "line", "reason"),
    [
        ("{{ x", 1, "unexpected end of template"),
        ("a\n{% for %}", 2, "Expected an expression"),
        ("\n\n{{ 'a' | uper }}", 3, "there is no filter 'uper': did you mean 'upper'?"),
        ("{% if false %}{{ 1 is evn }}{% endif %}", 1, "there is no test 'evn': did you mean 'even'?"),
        ("{% macro f() %}{% endmacro %}", 1, "{% macro %} cannot be used"),
        ("{% include 'x' %}", 1, "{% include %} cannot be used"),
        ("{% import 'x' as y %}", 1, "{% import %} cannot be used"),
        ("{% extends 'x' %}", 1, "{% extends %} cannot be used"),
        ("{% for x in [] recursive %}{% endfor %}", 1, "a recursive loop cannot be used"),
        ("{% set x.y = 1 %}", 1, "x.y cannot be set"),
        ("{{ " + "(" * 500 + "1" + ")" * 500 + " }}", 1, "nested too deeply"),
        ("{{ " + "[" * 150 + "]" * 150 + " }}", 1, "nested too deeply"),
        ("{% for x in [1] %}" * 30 + "{% endfor %}" * 30, 1, "nested too deeply"),
        ("{{ " + "9" * 5000 + " }}", 1, "too long"),
        ("{{ 1e999 }}", 1, "a number is too large"),
        ("x" * 300_000, 1, "it has 300000 characters; at most 262144"),
    ],
)
def test_what_is_no_template_is_told_without_running_it(template: str, line: int, reason: str) -> None:
    """Mistakes that do not hang on values are found by looking, with the line within the template."""
    with pytest.raises(TemplateInvalid) as caught:
        find_references(template)
    assert caught.value.line == line
    assert reason in str(caught.value)
    with pytest.raises(TemplateInvalid):
        render(template, SCOPE)


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
        "{% for a in range(5000) %}{% for b in range(5000) %}" + "x" * 10_000 + "{% endfor %}{% endfor %}",
        "{{ range(10**9) | list }}",
        "{{ 'x' * 10**9 }}",
        "{{ [0] * 10**9 }}",
        "{{ 10**9 * 'x' }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'aaaa' | replace('a', 'b' * 10**7) }}",
        "{{ goal | replace('', 'b' * 10**7) }}",
        "{{ 'a\nb' | indent(10**9) }}",
        "{{ 1 | round(10**9, 'floor') }}",
        "{{ range(9999) | join('x' * 10**6) }}",
        "{% set a = 'x' * 10**6 %}" + "{% set a = a ~ a %}" * 60,
        "{% set a = 'x' * 10**6 %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 60,
        "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}",
        "{% set a = [1] * 1000 %}" + "{% set a = a + a %}" * 60,
        "{% set a = range(9999) | list %}{% for x in a %}{% for y in a %}{{ a[x:] }}{% endfor %}{% endfor %}",
    ],
)
def test_every_template_ends_and_ends_small(template: str) -> None:
    """Neither loops nor operators nor filters nor copies of copies run away: the allowance ends them early."""
    start = time.process_time()
    with pytest.raises(TemplateTooCostly):
        render(template, SCOPE)
    assert time.process_time() - start < 10


def test_a_large_honest_template_is_rendered() -> None:
    """A reduce step over a thousand summaries stays far within the allowance."""
    scope: dict[str, Json] = {"steps": {"s": {"outputs": [{"summary": "word " * 40} for _ in range(1000)]}}}
    text = render("{% for one in steps.s.outputs %}- {{ one.summary }}\n{% endfor %}", scope)
    assert text.count("\n") == 1000


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 'a' + 1 }}", "can only concatenate str"),
        ("{{ item.get }}", "JSON has no word for"),
        ("{{ {1: 2} }}", "a key that is not text"),
        ("{{ inputs.n() }}", "not callable"),
        ("{{ goal | sum }}", "unsupported operand"),
        ("{{ 1e300 / 1e-300 }}", "JSON has no word for"),
    ],
)
def test_an_operation_that_fails_is_told(template: str, reason: str) -> None:
    """What goes wrong inside an expression is one typed error with the template in it."""
    with pytest.raises(TemplateFailed) as caught:
        evaluate(template, SCOPE)
    assert reason in caught.value.reason
    assert template in str(caught.value)


def test_a_long_template_is_named_by_its_beginning() -> None:
    """An error does not repeat a whole document."""
    with pytest.raises(TemplateError) as caught:
        render("x" * 5000 + "{{ no }}", SCOPE)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("template", "paths"),
    [
        ("{{ inputs.documents }}{{ item.text }}", {"inputs.documents", "item.text"}),
        ("{{ steps['my-step'].output.a }}", {"steps.my-step.output.a"}),
        ("{{ inputs.documents[0].text }}", {"inputs.documents"}),
        ("{{ steps[goal] }}", {"steps", "goal"}),
        ("{{ item.text.upper().lower() }}", {"item.text"}),
        ("{% for d in inputs.documents %}{{ d.text }}{{ loop.index }}{% endfor %}", {"inputs.documents"}),
        ("{% for d in inputs.a if d.b == goal %}{% else %}{{ d }}{% endfor %}{{ d }}", {"inputs.a", "goal", "d"}),
        ("{% for a, b in item.items() %}{{ a }}{{ b }}{% endfor %}", {"item"}),
        ("{% set x = goal %}{{ x }}", {"goal"}),
        ("{{ x }}{% set x = 1 %}", {"x"}),
        ("{% set x = x %}{{ x.y }}", {"x"}),
        ("{% for a in [1] %}{% set x = 1 %}{% endfor %}{{ x }}", {"x"}),
        ("{% if goal %}{% set x = 1 %}{% endif %}{{ x }}", {"goal"}),
        ("{% with a = b %}{{ a }}{% endwith %}{{ a }}", {"a", "b"}),
        ("{% set x %}{{ y }}{% endset %}{{ x }}", {"y"}),
        ("{% filter replace(goal, item) %}{{ index }}{% endfilter %}", {"goal", "item", "index"}),
        ("{{ range(3) }}{{ 'steps.a' }}{% raw %}{{ z }}{% endraw %}{# {{ c }} #}", set()),
        ("{{ inputs.x is defined }}{{ [item.a, {'k': item.b}] }}{{ 1 if index else goal }}",
         {"inputs.x", "item.a", "item.b", "index", "goal"}),
        ("{{ goal | default(item.text) | replace('a', inputs.b) }}", {"goal", "item.text", "inputs.b"}),
    ],
)  # fmt: skip
def test_references(template: str, paths: set[str]) -> None:
    """Every variable from outside is found with its path, and no name that the template makes itself."""
    assert references(template) == paths


def test_references_have_lines() -> None:
    """Each path is told once, with the first line that uses it."""
    template = "{{ goal }}\n{{ item.text }}\n{{ goal }}"
    assert find_references(template) == (Reference(("goal",), 1), Reference(("item", "text"), 2))


def test_references_are_what_rendering_needs() -> None:
    """A scope of nothing but the references suffices, and each one less fails."""
    template = "{{ goal }} {% for d in inputs.documents %}{{ d.text }}{% endfor %} {{ item.text }}"
    full: dict[str, Any] = {"goal": "g", "inputs": {"documents": [{"text": "t"}]}, "item": {"text": "x"}}
    assert references(template) == {"goal", "inputs.documents", "item.text"}
    assert render(template, full) == "g t x"
    for name in full:
        with pytest.raises(VariableMissing):
            render(template, {key: value for key, value in full.items() if key != name})


def test_what_is_an_expression() -> None:
    """Exactly one ``{{ }}`` and nothing but white space around it."""
    assert is_expression(" {{ a }} ")
    assert not any(map(is_expression, ["a", "{{ a }}b", "{{ a }}{{ b }}", "{% set a = 1 %}", ""]))
