import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from interlock.backends._openai_wire import parse_reply
from interlock.backends.engines import Endpoint

ENDPOINT = Endpoint(url="http://127.0.0.1:1/v1")
COUNTS = st.integers(0, 10**9)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text(max_size=9),
            "type": st.just("function"),
            "function": st.fixed_dictionaries({"name": st.text(max_size=9), "arguments": st.text(max_size=20)}),
        }
    ),
    max_size=3,
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | st.text(max_size=40)},
    optional={"refusal": st.none() | st.text(max_size=20), "tool_calls": CALLS},
)
USAGES = st.fixed_dictionaries({"prompt_tokens": COUNTS, "completion_tokens": COUNTS, "total_tokens": COUNTS})
ANSWERS = st.fixed_dictionaries(
    {
        "id": st.text(max_size=9),
        "object": st.just("chat.completion"),
        "created": COUNTS,
        "model": st.text(min_size=1, max_size=9),
        "choices": st.lists(
            st.fixed_dictionaries(
                {
                    "index": st.integers(0, 3),
                    "finish_reason": st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
                    "message": MESSAGES,
                    "logprobs": st.none(),
                }
            ),
            min_size=1,
            max_size=2,
        ),
    },
    optional={"usage": st.none() | USAGES, "system_fingerprint": st.none() | st.text(max_size=5)},
)


@given(ANSWERS)
def test_an_answer_is_read_as_the_official_client_reads_it(answer: dict[str, Any]) -> None:
    """Text, end, calls, model, id and tokens are those that the official models find in the same bytes."""
    body = json.dumps(answer).encode()
    theirs = ChatCompletion.model_validate_json(body)
    ours = parse_reply(body, ENDPOINT, "asked for")
    message, usage = theirs.choices[0].message, theirs.usage
    assert ours.text == (message.content or message.refusal or "")
    assert (ours.finish_reason, ours.model, ours.response_id) == (
        theirs.choices[0].finish_reason,
        theirs.model,
        theirs.id,
    )
    assert (ours.usage.prompt_tokens, ours.usage.completion_tokens) == (
        (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
    )
    calls: list[Any] = list(message.tool_calls or ())
    assert [(call.id, call.arguments) for call in ours.tool_calls] == [
        (call.id, call.function.arguments) for call in calls
    ]
