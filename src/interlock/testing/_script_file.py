"""Scripts as YAML or JSON: the same rules and replies, for those who write no Python."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from interlock.protocol.base import Json
from interlock.testing._script import Answer, CallTool, CallTools, Fail, Replies, Rule, otherwise, when


class ScriptUnreadable(ValueError):
    """A file holds no script."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Answer(_Form):
    answer: str | dict[str, Json]
    delay: float = Field(default=0.0, ge=0)


class _CallTool(_Form):
    call: str
    arguments: dict[str, Json] | str = {}


class _CallTools(_Form):
    calls: list[_CallTool] = Field(min_length=1)
    text: str = ""


class _Fail(_Form):
    fail: int = Field(ge=400, le=599)
    retry_after: float | None = None
    message: str = "the script says so"


class _Rule(_Form):
    when: str = ""
    reply: Any = None
    replies: list[Any] = []


_RULES = TypeAdapter(list[_Rule])
_FORMS: Mapping[str, type[_Form]] = {"answer": _Answer, "call": _CallTool, "calls": _CallTools, "fail": _Fail}


def load_script(path: Path) -> list[Rule]:
    """Return the rules in a file of YAML or JSON.

    :raises ScriptUnreadable: it holds none
    """
    try:
        rules = _RULES.validate_python(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))
        return [_rule(rule) for rule in rules]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ScriptUnreadable(path, f"{where}: {first['msg']}" if where else first["msg"]) from None
    except (MarkedYAMLError, re.error, ValueError) as error:
        raise ScriptUnreadable(path, str(error)) from None


def _rule(rule: _Rule) -> Rule:
    given = [*rule.replies, *([] if rule.reply is None else [rule.reply])]
    replies = [_reply(value) for value in given]
    return when(rule.when, *replies) if rule.when else otherwise(*replies)


def _reply(value: Any) -> Replies:
    if isinstance(value, str):
        return value
    form = next((form for name, form in _FORMS.items() if isinstance(value, dict) and name in value), None)
    if form is None:
        raise ValueError(f"{value!r} is no reply: expected text, or an object with one of {', '.join(_FORMS)}")
    match form.model_validate(value):
        case _Answer() as one:
            return Answer(one.answer, delay=one.delay)
        case _CallTool() as one:
            return CallTool(one.call, one.arguments)
        case _CallTools() as several:
            return CallTools(*(CallTool(one.call, one.arguments) for one in several.calls), text=several.text)
        case _Fail() as one:
            return Fail(one.fail, one.retry_after, one.message)
        case other:
            raise AssertionError(other)
