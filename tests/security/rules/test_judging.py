"""What holds for all rules and all calls: deny wins, layers only narrow, judging never fails, taint is asked for."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.security.rules.harness import FETCH, READ, RUN, SEND, call_of, layer, spec_of

from interlock.agents.tools.normal import ArgumentsInvalid, CallNotNormal, normalise
from interlock.protocol.permissions import (
    ArgumentRule,
    Call,
    Layer,
    PermissionRule,
    Permissions,
    RuleSpec,
    Source,
    judge_call,
)
from interlock.protocol.rule_checks import may_ever

STRICTNESS = {"allow": 0, "ask": 1, "deny": 2}

json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["a", "x@y.z", "/a", "*"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=6,
)
patterns = st.one_of(
    st.sampled_from(["*", "**", "a", "*a*", "/a/**", "x@*", "https://*/**", "git log *", "\\*", "null", "./x"]),
    st.text(max_size=6),
)
argument_rules = st.builds(
    lambda like, source: ArgumentRule(like=tuple(like), source=tuple(source)),
    st.lists(patterns, max_size=2),
    st.lists(st.sampled_from(["pinned", "instructed", "field", "data"]), max_size=3),
)
rule_specs = st.builds(
    RuleSpec,
    tool=st.sampled_from(["*", "mail.*", "mail.send", "files.read", "web.fetch", "shell.run", "m*d"]),
    effect=st.sampled_from([(), ("read",), ("irreversible", "once")]),
    network=st.sampled_from([None, True, False]),
    arguments=st.dictionaries(
        st.sampled_from(["to", "subject", "path", "url", "command", "*", "", "none"]), argument_rules, max_size=2
    ),
)
texts = st.one_of(
    st.builds(
        lambda tool, pattern: f"{tool}({pattern})",
        st.sampled_from(["*", "mail.send", "files.read", "shell.run"]),
        patterns,
    ),
    st.sampled_from(["*", "mail.send", "mail.*(to=x@*)", "files.read", "((", "", "web.fetch(a=b, c=d)"]),
    st.text(max_size=12),
)
rules: st.SearchStrategy[PermissionRule] = st.one_of(rule_specs, texts)
permissions = st.builds(
    Permissions,
    allow=st.lists(rules, max_size=3).map(tuple),
    ask=st.lists(rules, max_size=2).map(tuple),
    deny=st.lists(rules, max_size=2).map(tuple),
)
layers = st.builds(
    Layer, st.sampled_from(["operator", "team", "agent", "step"]), permissions, st.sampled_from(["/", "/a", "x", ""])
)
words = st.lists(st.one_of(st.text(max_size=5), st.sampled_from(["git", "log", "\0", "\0\0", ""])), max_size=3).map(
    tuple
)
calls = st.builds(
    Call,
    st.sampled_from([READ, FETCH, RUN, SEND, spec_of("odd.tool", {})]),
    st.dictionaries(
        st.sampled_from(["to", "subject", "body", "path", "url", "command", "other"]), json_values, max_size=3
    ),
    st.dictionaries(st.sampled_from(["command", "to"]), st.lists(words, max_size=2).map(tuple), max_size=1),
    st.dictionaries(
        st.sampled_from(["to", "subject", "path"]),
        st.sampled_from(["pinned", "instructed", "field", "data"]),
        max_size=3,
    ),
    st.booleans(),
)
many = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(st.lists(layers, max_size=4), calls)
def test_judging_never_raises(some: list[Layer], call: Call) -> None:
    """Whatever rules and arguments there are, there is a decision with a reason."""
    decision = judge_call(some, call)
    assert decision.outcome in STRICTNESS
    assert decision.reason


@many
@given(st.lists(layers, min_size=1, max_size=4), layers, calls)
def test_a_further_layer_never_widens(some: list[Layer], more: Layer, call: Call) -> None:
    """Where rules have spoken, a further layer makes the outcome stricter or leaves it."""
    before = judge_call(some, call)
    if before.layer:
        assert STRICTNESS[judge_call([*some, more], call).outcome] >= STRICTNESS[before.outcome]
        assert STRICTNESS[judge_call([more, *some], call).outcome] >= STRICTNESS[before.outcome]


@many
@given(st.lists(layers, min_size=1, max_size=3), permissions, calls, st.data())
def test_deny_wins_whatever_is_added(some: list[Layer], added: Permissions, call: Call, data: st.DataObject) -> None:
    """What is denied by a rule stays denied, whichever rules are added anywhere."""
    decision = judge_call(some, call)
    if decision.outcome != "deny" or not decision.rule:
        return
    at = data.draw(st.integers(0, len(some) - 1))
    old = some[at].permissions
    new = Permissions(allow=added.allow + old.allow, ask=added.ask + old.ask, deny=added.deny + old.deny)
    assert judge_call([*some[:at], replace(some[at], permissions=new), *some[at + 1 :]], call).outcome == "deny"


@many
@given(st.lists(layers, min_size=1, max_size=3), calls)
def test_taint_never_widens(some: list[Layer], call: Call) -> None:
    """The same call is judged at least as strictly with text from outside in the context."""
    clean, tainted = (judge_call(some, replace(call, tainted=tainted)).outcome for tainted in (False, True))
    assert STRICTNESS[tainted] >= STRICTNESS[clean]


@many
@given(st.lists(layers, min_size=1, max_size=3), calls)
def test_what_can_never_be_called_never_is(some: list[Layer], call: Call) -> None:
    """A tool that is an error at load is never allowed nor asked for, with whatever arguments."""
    if not may_ever(some, call.spec, {}):
        assert judge_call(some, call).outcome == "deny"


def test_no_rule_at_all_denies() -> None:
    """Without rules nothing is allowed; and a layer without rules says nothing."""
    call = call_of(READ, "/a")
    assert judge_call([], call).outcome == "deny"
    assert judge_call([layer(), layer(deny=("web.*",))], call).outcome == "deny"
    assert judge_call([layer(), layer(allow=("files.*",)), layer(deny=("web.*",))], call).outcome == "allow"


@pytest.mark.parametrize(
    ("one", "other", "outcome"),
    [
        ("allow", "allow", "allow"),
        ("allow", "ask", "ask"),
        ("ask", "deny", "deny"),
        ("allow", "deny", "deny"),
        ("deny", "ask", "deny"),
    ],
)
def test_the_strictest_layer_stands(one: str, other: str, outcome: str) -> None:
    """Deny beats ask beats allow, across layers and within one, in any order."""
    call = call_of(READ, "/a")
    two = [
        Layer(name, Permissions.model_validate({kind: ("files.read",)})) for name, kind in (("a", one), ("b", other))
    ]
    assert judge_call(two, call).outcome == judge_call(two[::-1], call).outcome == outcome
    merged = Permissions.model_validate({one: ("files.read",), other: ("files.*",)})
    assert judge_call([Layer("one", merged)], call).outcome == outcome


def test_a_layer_that_allows_something_denies_the_rest() -> None:
    """A step that allows one thing narrows what its team allows."""
    team, step = layer(allow=("*",)), layer(allow=("files.read(/a/**)",), name="step")
    assert judge_call([team, step], call_of(READ, "/a/b")).outcome == "allow"
    assert judge_call([team, step], call_of(READ, "/b")).layer == "step"


def send(**arguments: object) -> Call:
    return Call(SEND, {"to": "x@y.z", "subject": "s", "body": "b", **arguments}, tainted=True)  # type: ignore[dict-item]


def test_tainted_calls_are_asked_for() -> None:
    """With text from outside in the context an effect goes only with pinned arguments, or those that a rule trusts."""
    rules = [layer(allow=("mail.send",))]
    pinned: dict[str, Source] = {"to": "pinned", "subject": "pinned", "body": "pinned"}
    assert judge_call(rules, replace(send(), sources=pinned)).outcome == "allow"
    decision = judge_call(rules, replace(send(), sources={**pinned, "body": "field"}))
    assert (decision.outcome, "'body'" in decision.reason) == ("ask", True)
    trusting = RuleSpec(tool="mail.send", arguments={"body": ArgumentRule(source=("pinned", "field"))})
    assert (
        judge_call([layer(allow=(trusting,))], replace(send(), sources={**pinned, "body": "field"})).outcome == "allow"
    )
    assert judge_call([layer(allow=(trusting,))], replace(send(), sources={**pinned, "body": "data"})).outcome == "ask"
    rest = RuleSpec(tool="mail.send", arguments={"*": ArgumentRule(source=("data",))})
    assert judge_call([layer(allow=(rest,))], send()).outcome == "allow"
    assert judge_call([layer(allow=(rest,), deny=("mail.*",))], send()).outcome == "deny"


@pytest.mark.parametrize(("spec", "outcome"), [(READ, "allow"), (FETCH, "ask"), (RUN, "ask")])
def test_taint_concerns_effects_and_the_network(spec: object, outcome: str) -> None:
    """Reading here stays allowed in a tainted context; what writes or sends does not."""
    assert isinstance(spec, type(READ))
    value = {"files.read": "/a", "web.fetch": "https://a.b/", "shell.run": "ls"}[spec.name]
    assert judge_call([layer(allow=("*",))], replace(call_of(spec, value), tainted=True)).outcome == outcome


def test_a_missing_argument_holds_back_and_never_allows() -> None:
    """What a call leaves to the tool may be anything: enough for a deny, too little for an allow."""
    call = Call(SEND, {"to": "a"})
    assert judge_call([layer(allow=("mail.send(subject=x)",))], call).outcome == "deny"
    assert judge_call([layer(allow=("mail.send(subject=**)",))], call).outcome == "allow"
    assert judge_call([layer(allow=("*",), deny=("mail.send(subject=x)",))], call).outcome == "deny"
    assert judge_call([layer(allow=("*",), deny=("*(path=x)",))], call).outcome == "allow"


@pytest.mark.parametrize(
    ("value", "allowed", "denied"),
    [
        (["a@x", "b@x"], True, True), (["a@x", "b@y"], False, True), ([], False, False), ("a@x", True, True),
        ([["a@x"]], False, True), ({"k": "a@x"}, False, True), (7, False, False), (None, False, False),
        ("A@X", False, True),         ("a@\uff58", False, True), ("a@\u200bx", False, True),
    ],
)  # fmt: skip
def test_every_element_for_allow_any_for_deny(value: object, allowed: bool, denied: bool) -> None:
    """A list fits an allow if all of it does, and a deny if any of it does, also deep inside or in other letters."""
    call = Call(SEND, {"to": value})  # type: ignore[dict-item]
    assert (judge_call([layer(allow=("mail.send(to=*@x)",))], call).outcome == "allow") is allowed
    assert (judge_call([layer(allow=("*",), deny=("mail.send(to=*@x)",))], call).outcome == "deny") is denied


def test_a_rule_that_cannot_be_read_denies() -> None:
    """A layer with a rule that nobody can read allows nothing."""
    assert judge_call([layer(allow=("*",), deny=("((",))], call_of(READ, "/a")).outcome == "deny"
    assert (
        judge_call([layer(allow=("*",), deny=("web.fetch(not a url)",))], call_of(FETCH, "https://a.b/")).outcome
        == "deny"
    )


def test_arguments_are_checked_and_completed() -> None:
    """Unknown arguments are refused, types checked, defaults filled in so that rules see them."""
    spec = SEND.model_copy(
        update={"parameters": {"type": "object", "properties": {"to": {"type": "string", "default": "me"}}}}
    )
    assert normalise(spec, {}, Path("/")).arguments == {"to": "me"}
    for wrong in ({"to": 3}, {"cc": "x"}, {"to": "a", "": "b"}):
        with pytest.raises(ArgumentsInvalid):
            normalise(spec, wrong, Path("/"))


@many
@given(
    st.sampled_from([READ, FETCH, RUN, SEND]),
    st.dictionaries(st.sampled_from(["path", "url", "command", "to"]), json_values, max_size=2),
)
def test_normalising_ends_in_a_call_or_a_typed_error(spec: object, arguments: dict[str, object]) -> None:
    """No arguments get anything else out of it; and a call that has one form is its own."""
    assert isinstance(spec, type(READ))
    try:
        call = normalise(spec, arguments, Path("/"))  # type: ignore[arg-type]
    except CallNotNormal:
        return
    again = normalise(spec, call.arguments, Path("/"))
    assert again.arguments == call.arguments
    assert again.commands == call.commands
