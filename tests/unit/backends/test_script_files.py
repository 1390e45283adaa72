from pathlib import Path

import pytest

from interlock.testing import Answer, Call, CallTool, CallTools, Fail
from interlock.testing._script import compiled
from interlock.testing._script_file import ScriptUnreadable, load_script

SCRIPT = """
- when: Read the rules
  reply: {call: files.read, arguments: {path: rules.txt}}
- when: no such file
  reply: {calls: [{call: files.list}, {call: files.read, arguments: "{broken"}], text: hm}
- when: busy
  replies: [{fail: 429, retry_after: 0.1}, now I have time]
- reply: {answer: {rules: 3}, delay: 0.5}
"""


def call(prompt: str, repeat: int = 1) -> Call:
    return Call(({"role": "user", "content": prompt},), "m", None, 1, repeat, {})


def test_a_script_of_yaml_says_what_one_of_python_does(tmp_path: Path) -> None:
    """Rules, repeats, calls, failures and answers all have their words."""
    path = tmp_path / "script.yaml"
    path.write_text(SCRIPT)
    decide = compiled(load_script(path))
    assert decide(call("Read the rules!")) == CallTool("files.read", {"path": "rules.txt"})
    assert decide(call("no such file")) == CallTools(
        CallTool("files.list"), CallTool("files.read", "{broken"), text="hm"
    )
    assert decide(call("busy")) == Fail(429, retry_after=0.1)
    assert decide(call("busy", 2)) == Answer("now I have time")
    assert decide(call("else")) == Answer({"rules": 3}, delay=0.5)


def test_a_script_may_be_json(tmp_path: Path) -> None:
    """JSON is YAML as well."""
    path = tmp_path / "script.json"
    path.write_text('[{"when": "a", "reply": "b"}]')
    assert compiled(load_script(path))(call("a")) == Answer("b")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "valid list"),
        ("{}", "valid list"),
        ("- when: a", "'a' has no reply"),
        ("- when: '('\n  reply: x", "unterminated subpattern"),
        ("- reply: {summary: x}", "is no reply: expected text, or an object with one of answer, call, calls, fail"),
        ("- reply: {call: files.read, path: x}", "path: Extra inputs are not permitted"),
        ("- reply: {fail: 200}", "fail: Input should be greater than or equal to 400"),
        ("- replies: 3", "valid list"),
        ("- [", "parsing"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, problem: str) -> None:
    """The error says which file and what is wrong in it."""
    path = tmp_path / "script.yaml"
    path.write_text(text)
    with pytest.raises(ScriptUnreadable) as caught:
        load_script(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert problem in str(caught.value)
