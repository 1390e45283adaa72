"""Whatever stands in a team file, reading it ends in a team or in problems with places."""

import contextlib
import re
from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from interlock.agents.templates import TemplateError, evaluate, references, render
from interlock.protocol.base import Json
from interlock.protocol.plan import check_graph, sinks, topological_order
from interlock.protocol.team import Step
from interlock.runtime.teamfile import LoadedTeam, TeamFileInvalid, parse_team

FOLDER = Path(__file__).parents[1] / "unit" / "teams"
VALID = (FOLDER / "valid.yaml").read_text()
TEXTS = [VALID, *(path.read_text("utf-8", "replace") for path in sorted((FOLDER / "broken").glob("*.yaml")))]

SNIPPETS = (
    *("&a ", "*a", "<<: *a", "!!map ", "!x ", "? ", "- ", "| ", "> ", "{", "}", "[", "]", ": ", "#", "'", '"', "\t"),
    *("\n", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x\n", "null", "~", "true", ".inf", "0x1F", "1e400", "\0", "\x85"),
    *("\ufeff", "\u2028", '"\\ud800"', "{{ steps }}", "{{ item }}", "{% for x in y %}", "2001-01-01", "[[]]", "{}"),
    *(
        "=",
        "!!binary x",
        "!!set {a}",
        "!!omap []",
        "&a [*a]",
        "\\",
        "1_0",
        "0o9",
        "-",
        "é",
        "\U0001f600",
        "field: a.b.c",
    ),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def read(text: str) -> LoadedTeam | None:
    """Read ``text``; whatever is wrong with it must be told properly."""
    try:
        return parse_team(text, "team.yaml")
    except TeamFileInvalid as error:
        problems = error.problems
    last_line = len(re.split("[\n\r\x85\u2028\u2029]", text))
    assert problems
    for problem in problems:
        assert 1 <= problem.line <= last_line
        assert problem.column >= 1
        assert problem.message
        assert str(problem).startswith(f"team.yaml:{problem.line}:{problem.column}: ")
    return None


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_team_or_problems(text: str) -> None:
    """No text makes reading fail in any other way."""
    read(text)


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """One of the team files with a few things cut out, put in or repeated."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        middle = draw(st.sampled_from(SNIPPETS) | st.text(max_size=4) | st.just(text[start:end] * 2))
        text = text[:start] + middle + text[end:]
    return text


@given(mutations())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_mutation_is_a_team_or_problems(text: str) -> None:
    """Whatever is changed about a team file, it is a team or told what is wrong with it."""
    loaded = read(text)
    if loaded is not None:
        assert not check_graph(loaded.team.plan, loaded.needs)


LINES = VALID.splitlines(keepends=True)


@given(st.lists(st.sampled_from(range(len(LINES))), max_size=6), st.permutations(range(len(LINES))), st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_lines_left_out_or_moved(left_out: list[int], order: list[int], moved: bool) -> None:
    """A file that lost or mixed up lines is read or told about, line by line."""
    kept = [index for index in (order if moved else range(len(LINES))) if index not in left_out]
    read("".join(LINES[index] for index in kept))


@given(st.text(alphabet="{}%# abcstepinuot.[]()'\"|~+*-/_0123456789\n,:=<>", max_size=60), json_values)
@example("{{ steps|map|map }}", {})
@settings(max_examples=400, deadline=None)
def test_any_template_gives_a_value_or_a_typed_error(text: str, value: Json) -> None:
    """No template and no value make rendering, evaluating or analysing fail in any other way."""
    scope = {"item": value, "steps": {"a": value}, "inputs": {"b": value}, "goal": "g"}
    for source in (text, "{{ " + text + " }}", "{% for item in " + text + " %}{{ item }}{% endfor %}"):
        with contextlib.suppress(TemplateError):
            references(source)
        with contextlib.suppress(TemplateError):
            assert isinstance(render(source, scope), str)
        with contextlib.suppress(TemplateError):
            evaluate(source, scope)


@given(json_values)
@settings(max_examples=200, deadline=None)
def test_values_pass_through_templates_unchanged(value: Json) -> None:
    """One expression gives exactly the value that it names, and text stands as it is."""
    assert evaluate("{{ item }}", {"item": value}) == value
    if isinstance(value, str):
        assert render("<{{ item }}>", {"item": value}) == f"<{value}>"


graphs = st.lists(st.lists(st.integers(0, 7), max_size=3, unique=True), min_size=1, max_size=7)


@given(graphs)
@settings(max_examples=300, deadline=None)
def test_a_graph_has_an_order_or_a_problem(graph: list[list[int]]) -> None:
    """Either every step comes after all that it needs, or there is a problem; a circle that is shown is one."""
    steps = [
        Step(step=f"s{index}", agent="a", do="x", needs=tuple(f"s{need}" for need in needs))
        for index, needs in enumerate(graph)
    ]
    needs = {step.step: step.needs for step in steps}
    problems = check_graph(steps)
    for problem in problems:
        path = getattr(problem.error, "path", ())
        assert all(following in needs[step] for step, following in pairwise(path))
        assert not path or (path[0] == path[-1] and len(set(path)) == len(path) - 1)
    if not problems:
        order = topological_order(steps)
        assert sorted(order) == sorted(needs)
        assert all(order.index(need) < order.index(step) for step in order for need in needs[step])
        assert sinks(steps)
