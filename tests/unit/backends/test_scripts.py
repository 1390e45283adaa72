import pytest

from interlock.testing import Answer, Call, Fail, HangUp, otherwise, when
from interlock.testing._script import compiled


def call(prompt: str, number: int = 1, repeat: int = 1) -> Call:
    return Call(({"role": "user", "content": prompt},), "m", None, number, repeat, {})


def test_the_first_rule_that_matches_decides() -> None:
    """Rules are looked at in order, over line ends too, and each gives its replies in turn to the same messages."""
    decide = compiled([when("red.*blue", "both"), when("red", HangUp(), {"a": 1}), otherwise("none")])
    assert decide(call("red\nand blue")) == Answer("both")
    assert [decide(call("red", repeat=repeat)) for repeat in (1, 2, 3)] == [
        HangUp(),
        Answer({"a": 1}),
        Answer({"a": 1}),
    ]
    assert decide(call("green")) == Answer("none")


def test_a_call_that_no_rule_matches_is_said_so() -> None:
    """The failure names the rules and the message, so that the author of a script sees what is missing."""
    reply = compiled([when("red", "r")])(call("green"))
    assert reply == Fail(400, message="no rule of the script ('red') matches the last message 'green'")


def test_a_function_may_return_a_bare_answer() -> None:
    """Text and objects stand for answers with that content."""
    decide = compiled(lambda call: "odd" if call.number % 2 else {"even": True})
    assert [decide(call("", number)) for number in (1, 2)] == [Answer("odd"), Answer({"even": True})]
    assert decide(call("", 2)).text == '{"even": true}'  # type: ignore[union-attr]


def test_a_rule_without_a_reply_is_refused() -> None:
    """An empty rule is a mistake of the script and is reported where it is written."""
    with pytest.raises(ValueError, match="'x' has no reply"):
        when("x")
