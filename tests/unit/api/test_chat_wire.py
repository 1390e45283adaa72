"""What of the OpenAI API's requests a team takes, and what its answers look like."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from interlock.protocol.base import Usage
from interlock.runtime.api.chat_wire import ChatRequest, Chunk, ChunkChoice, Delta, refusal, usage_of

_USER = {"role": "user", "content": "go"}


def request(**more: Any) -> ChatRequest:
    """Return a request with a message and these fields."""
    return ChatRequest.model_validate({"model": "digest", "messages": [_USER], **more})


def test_what_means_nothing_to_a_team_is_ignored() -> None:
    """Clients send sampling, limits and names; a null is a field that is left out."""
    many = {
        "temperature": 0.2,
        "top_p": None,
        "max_tokens": 5,
        "max_completion_tokens": 5,
        "seed": 1,
        "stop": ["\n"],
        "user": "ann",
        "metadata": {"a": "b"},
        "logit_bias": {},
        "n": 1,
        "tools": [],
        "functions": None,
        "tool_choice": "none",
        "parallel_tool_calls": True,
        "modalities": ["text"],
        "stream_options": {"include_usage": True, "include_obfuscation": False},
        "invented": {"by": "somebody"},
    }
    taken = request(**many)
    assert refusal(taken) is None
    assert taken.wants_usage
    assert request(stream_options=None).wants_usage is False


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": 0}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": [{}]}, "functions"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages[0].content"),
        ({"messages": [_USER, {"role": "assistant", "tool_calls": [{}]}, _USER]}, "messages[1]"),
        ({"messages": [{"role": "tool", "tool_call_id": "1", "content": "x"}, _USER]}, "messages[0]"),
    ],
)
def test_what_a_team_cannot_do_is_refused_by_name(more: dict[str, Any], param: str) -> None:
    """Instead of being left out in silence."""
    found = refusal(request(**more))
    assert found is not None
    assert (found.status, found.param, found.body.error.param) == (400, param, param)


@pytest.mark.parametrize("wrong", [{"inputs": []}, {"id": "a:b"}, {"id": "a b"}, {"invented": 1}, {"progress": "x"}])
def test_what_only_a_team_understands_is_read_strictly(wrong: dict[str, Any]) -> None:
    """Who writes it means it: nothing of it is ignored."""
    with pytest.raises(ValidationError):
        request(interlock=wrong)


def test_a_chunk_is_an_event_that_any_reader_takes() -> None:
    """One line of JSON, with a finish reason in each choice and nothing else that is null."""
    chunk = Chunk(id="chatcmpl-j", created=1, model="m", choices=(ChunkChoice(delta=Delta(content="a\nb\u2028")),))
    raw = chunk.encoded().decode()
    assert raw.startswith("data: {")
    assert raw.endswith("}\n\n")
    assert len(raw.splitlines()) == 2
    assert json.loads(raw.removeprefix("data: "))["choices"] == [
        {"index": 0, "delta": {"content": "a\nb\u2028"}, "finish_reason": None}
    ]


def test_usage_is_added_up() -> None:
    """Prompt and completion are the job's; the total is their sum."""
    found = usage_of(Usage(calls=3, prompt_tokens=5, completion_tokens=7))
    assert found.model_dump() == {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
