"""Principles: sentences and long forms, and what no call and no plan gets past."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.protocol.base import Json
from interlock.protocol.permissions import ArgumentRule, Call, RuleSpec
from interlock.protocol.principles import (
    DoneCall,
    Principle,
    PrincipleInvalid,
    PrincipleSpec,
    broken_by_call,
    broken_by_plan,
    parse_principle,
)
from interlock.protocol.team import Handover, PinnedTool, Step, ToolUse
from interlock.protocol.tools import EFFECT_CLASSES, ToolSpec

SEND = ToolSpec(
    name="mail.send",
    effect="once",
    network=True,
    parameters={"type": "object", "properties": {"to": {}, "body": {}}},
    primary="to",
    destinations=("to",),
)
FETCH = ToolSpec(name="web.fetch", effect="read", network=True)
WRITE = ToolSpec(
    name="files.write",
    effect="idempotent",
    parameters={"type": "object", "properties": {"path": {}, "text": {}}},
    kinds={"path": "path"},
    primary="path",
    destinations=("path",),
)
REVIEW = ToolSpec(name="review.approve", effect="idempotent")
DELETE = ToolSpec(name="files.delete", effect="irreversible")
CATALOGUE = {spec.name: spec for spec in (SEND, FETCH, WRITE, REVIEW, DELETE)}


def _breaks(principle: Principle, call: Call, *done: DoneCall) -> bool:
    return broken_by_call([principle], call, done) is not None


def _done(spec: ToolSpec, **arguments: Json) -> DoneCall:
    return DoneCall(spec.name, spec.effect, arguments, spec)


def _step(name: str, *tools: ToolUse, needs: tuple[str, ...] = (), agent: str = "writer") -> Step:
    return Step(step=name, agent=agent, do="go", tools=tools, needs=needs)


@pytest.mark.parametrize(
    ("sentence", "spec"),
    [
        ("never send anything outside", PrincipleSpec(never=RuleSpec(network=True))),
        ("never mail.send", PrincipleSpec(never="mail.send")),
        ("Never files.write(/etc/**).", PrincipleSpec(never="files.write(/etc/**)")),
        ("never web.* with tainted data", PrincipleSpec(never="web.*", tainted=True)),
        ("never mail.send before review.approve", PrincipleSpec(never="mail.send", before="review.approve")),
        ("never irreversible effects", PrincipleSpec(never=RuleSpec(effect=("irreversible",)))),
        (
            "never effects to '*@evil.example' after files.read",
            PrincipleSpec(
                never=RuleSpec(effect=("idempotent", "once", "irreversible")),
                to=("*@evil.example",),
                after="files.read",
            ),
        ),
        ("never anything with tainted data", PrincipleSpec(never=RuleSpec(), tainted=True)),
        ("never send anything outside to 10.*", PrincipleSpec(never=RuleSpec(network=True), to=("10.*",))),
    ],
)
def test_a_sentence_is_its_long_form(sentence: str, spec: PrincipleSpec) -> None:
    """Each form of the grammar means what it says, and goes by its own words."""
    assert parse_principle(sentence) == spec.model_copy(update={"name": sentence})


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("be nice", "never send anything outside"),
        ("never", "never TOOL"),
        ("never banana", "'banana' is no name of a tool"),
        ("never mail.send unless asked", "'unless asked' is not understood"),
        ("never mail.send before", "not understood"),
        ("never mail.send to a.example to b.example", "'to' stands twice"),
        ("never mail.send(to=)", "a pattern is missing"),
    ],
)
def test_a_sentence_that_is_not_understood_says_which_are(sentence: str, said: str) -> None:
    """Nothing is guessed: the error names what it stumbled over and what would be right."""
    with pytest.raises(PrincipleInvalid, match=r".") as caught:
        parse_principle(sentence)
    assert said in str(caught.value)
    assert caught.value.principle == sentence


def test_a_principle_that_cannot_be_read_holds_everything_back() -> None:
    """It is found when a team is checked; should it ever get further, nothing gets past it."""
    broken = broken_by_call(["be nice"], Call(FETCH, {}))
    assert broken is not None
    assert "be nice" in str(broken)
    assert broken_by_plan(["be nice"], [_step("a")], {}, CATALOGUE)


def test_what_is_never_done_is_never_done() -> None:
    """Tools, arguments, effect classes, networks and destinations."""
    mail = Call(SEND, {"to": ["Eve@evil.example", "bob@corp.example"], "body": "hi"})
    assert _breaks("never send anything outside", mail)
    assert _breaks("never send anything outside", Call(FETCH, {}))
    assert not _breaks("never send anything outside", Call(WRITE, {"path": "/tmp/x"}))  # noqa: S108 -- only a name
    assert _breaks("never mail.*", mail)
    assert _breaks("never once effects", mail)
    assert _breaks("never effects to *@evil.example", mail)
    assert not _breaks("never effects to *@other.example", mail)
    assert _breaks("never files.write(/etc/**)", Call(WRITE, {"path": "/etc/passwd"}))
    assert not _breaks("never files.write(/etc/**)", Call(WRITE, {"path": "/srv/x"}))
    assert not _breaks("never irreversible effects", mail)
    assert _breaks(PrincipleSpec(never=RuleSpec(arguments={"body": ArgumentRule(like=("hi",))})), mail)


def test_a_tool_that_names_no_destinations_may_send_anywhere() -> None:
    """Any of its arguments may be the address."""
    call = Call(ToolSpec(name="x.post", effect="once"), {"where": "eve@evil.example"})
    assert _breaks("never effects to *@evil.example", call)


def test_taint_matters_where_the_principle_says_so() -> None:
    """The same call goes while nothing from outside is in the context."""
    assert not _breaks("never web.* with tainted data", Call(FETCH, {}))
    assert _breaks("never web.* with tainted data", Call(FETCH, {}, tainted=True))


def test_the_order_of_calls_is_kept() -> None:
    """Not before the review, and not after the secret was read."""
    call = Call(SEND, {"to": "bob@corp.example"})
    assert _breaks("never mail.send before review.approve", call)
    assert not _breaks("never mail.send before review.approve", call, _done(REVIEW))
    assert not _breaks("never mail.send after files.write(/secret/**)", call, _done(WRITE, path="/srv/x"))
    assert _breaks("never mail.send after files.write(/secret/**)", call, _done(WRITE, path="/secret/x"))


def test_of_an_unknown_past_the_worse_is_taken() -> None:
    """A call of which only name and class are known opens nothing and closes everything that it could."""
    call = Call(SEND, {"to": "bob@corp.example"})
    unknown = DoneCall("tool.x", "once", {"path": "/secret/x"})
    assert _breaks("never mail.send before send anything outside", call, unknown)
    assert _breaks("never mail.send after send anything outside", call, unknown)
    assert _breaks("never mail.send after tool.x(/secret/**)", call, unknown)


def test_a_plan_with_what_is_never_allowed_is_rejected_with_the_principle_named() -> None:
    """The step, the tool and the principle are told."""
    (broken,) = broken_by_plan(["never mail.send"], [_step("notify", "web.fetch", "mail.send")], {}, CATALOGUE)
    assert broken.step == "notify"
    assert "mail.send" in str(broken)
    assert "'never mail.send'" in str(broken)


def test_a_plan_is_not_rejected_for_what_depends_on_values() -> None:
    """Arguments that the plan leaves open, and taint, show only in the calls."""
    steps = [_step("write", "files.write", "mail.send")]
    open_ends = ["never files.write(/etc/**)", "never mail.send with tainted data", "never effects to *@evil.example"]
    assert broken_by_plan(open_ends, steps, {}, CATALOGUE) == ()


def test_an_argument_that_the_plan_fixes_is_judged_with_the_plan() -> None:
    """What the plan itself decides needs no call to be wrong; a template decides nothing yet."""
    fixed = PinnedTool(tool="files.write", pin={"path": "/etc/passwd"})
    later = PinnedTool(tool="files.write", pin={"path": "{{ inputs.path }}"})
    principles: list[Principle] = ["never files.write(/etc/**)"]
    assert broken_by_plan(principles, [_step("write", fixed)], {}, CATALOGUE)
    assert not broken_by_plan(principles, [_step("write", later)], {}, CATALOGUE)
    thief = PinnedTool(tool="mail.send", pin={"to": "a@evil.example"})
    assert broken_by_plan(["never effects to *@evil.example"], [_step("mail", thief)], {}, CATALOGUE)


def test_a_plan_that_cannot_keep_the_order_is_rejected() -> None:
    """A step that sends needs one that reviews, directly or not, or has to be able to review itself."""
    rule: list[Principle] = ["never mail.send before review.approve"]
    review, middle = _step("review", "review.approve"), _step("middle", needs=("review",))
    assert not broken_by_plan(rule, [review, middle, _step("send", "mail.send", needs=("middle",))], {}, CATALOGUE)
    assert not broken_by_plan(rule, [_step("send", "mail.send", "review.approve")], {}, CATALOGUE)
    assert broken_by_plan(rule, [review, _step("send", "mail.send")], {}, CATALOGUE)
    assert broken_by_plan(rule, [_step("send", "mail.send"), _step("review", needs=("send",))], {}, CATALOGUE)


def test_the_tools_of_an_agent_and_of_who_takes_over_count() -> None:
    """A step without tools of its own has those of whoever may end up doing it."""
    tools: dict[str, tuple[ToolUse, ...]] = {"writer": ("web.fetch",), "helper": ("mail.send",)}
    step = Step(step="a", agent="writer", do="go", on_failure=Handover(agent="helper"))
    assert broken_by_plan(["never mail.send"], [step], tools, CATALOGUE)
    assert not broken_by_plan(["never mail.send"], [step.model_copy(update={"on_failure": "fail"})], tools, CATALOGUE)


def test_a_tool_that_nobody_knows_is_taken_for_the_worst() -> None:
    """It may reach anywhere and undo nothing."""
    steps = [_step("a", "strange.tool")]
    for principle in ("never send anything outside", "never irreversible effects"):
        assert broken_by_plan([principle], steps, {}, CATALOGUE)


_SENTENCES = (
    "never send anything outside",
    "never mail.send",
    "never files.write(/etc/**)",
    "never web.* with tainted data",
    "never mail.send before review.approve",
    "never effects after web.fetch",
    "never irreversible effects",
    "never effects to *@evil.example",
)
_calls = st.builds(
    Call,
    st.sampled_from(sorted(CATALOGUE.values(), key=lambda spec: spec.name)),
    st.fixed_dictionaries(
        {}, optional={"to": st.sampled_from(["a@evil.example", "b@x"]), "path": st.sampled_from(["/etc/x", "/x"])}
    ),
    tainted=st.booleans(),
)
_past = st.lists(
    st.builds(lambda call: DoneCall(call.spec.name, call.spec.effect, call.arguments, call.spec), _calls), max_size=4
)


@given(st.lists(st.sampled_from(_SENTENCES), unique=True), st.lists(st.sampled_from(_SENTENCES)), _calls, _past)
def test_more_principles_never_allow_more(
    few: list[Principle], more: list[Principle], call: Call, done: list[DoneCall]
) -> None:
    """What some principles hold back, these and others hold back, in whatever order they stand."""
    if broken_by_call(few, call, done) is not None:
        assert broken_by_call([*more, *few], call, done) is not None


@given(st.sampled_from(_SENTENCES), _calls, _past, _past)
def test_the_past_opens_only_what_waits_for_something(
    sentence: str, call: Call, before: list[DoneCall], more: list[DoneCall]
) -> None:
    """A longer past allows more only under a principle that says ``before``."""
    if "before" not in sentence and _breaks(sentence, call, *before):
        assert _breaks(sentence, call, *before, *more)


_tools = st.lists(st.sampled_from(sorted(CATALOGUE)), unique=True, max_size=3)


@given(st.lists(_tools, min_size=1, max_size=4), st.sampled_from(_SENTENCES), st.data())
def test_a_rejected_plan_could_not_have_run(tools: list[list[str]], sentence: str, data: st.DataObject) -> None:
    """Whatever the steps before did with what they may use, the call that the plan was rejected for breaks too."""
    steps = [
        _step(
            f"s{number}",
            *some,
            needs=tuple(data.draw(st.sets(st.sampled_from([f"s{one}" for one in range(number)])))) if number else (),
        )
        for number, some in enumerate(tools)
    ]
    for broken in broken_by_plan([sentence], steps, {}, CATALOGUE):
        step = next(one for one in steps if one.step == broken.step)
        needed = [one for one in steps if one.step in step.needs]
        past = [_done(CATALOGUE[use]) for one in needed for use in one.tools or () if isinstance(use, str)]
        assert any(
            _breaks(sentence, Call(CATALOGUE[use], {}), *past) for use in step.tools or () if isinstance(use, str)
        )


def test_effect_classes_are_all_words_of_the_grammar() -> None:
    """A class that is added has to be sayable."""
    for effect in EFFECT_CLASSES:
        assert parse_principle(f"never {effect} effects").never == RuleSpec(effect=(effect,))
    for one, other in combinations(_SENTENCES, 2):
        assert parse_principle(one) != parse_principle(other)
