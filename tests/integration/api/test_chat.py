"""A team as a model: what the official client, curl and any reader of events make of it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2
import openai
import pytest
import pytest_asyncio
from anyio import to_thread
from openai import AsyncOpenAI, OpenAI
from tests.integration.api.chat_teams import Background, Served
from tests.waiting import eventually

from interlock.protocol.messages import JobClosed, JobSubmitted
from interlock.protocol.subjects import chain_subjects, submitted_subject
from interlock.protocol.team import Budget
from interlock.runtime.questions import give_answer
from interlock.testing import Seen

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

_Client = Any
"""The official client, written to as its users do: its overloads would have every test say whether it streams."""

_GO: list[Any] = [{"role": "user", "content": "Say that it is done."}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """Keep the teams up for all tests of the module."""
    background = Background(tmp_path_factory.mktemp("chat"))
    yield await background.ready()
    await background.close()


@pytest_asyncio.fixture(loop_scope="module")
async def client(api: Served) -> AsyncIterator[AsyncOpenAI]:
    """Return the official client, which tries nothing again that was refused."""
    async with AsyncOpenAI(base_url=api.url, api_key="all", timeout=60) as found:
        yield found


def user(text: str) -> dict[str, Any]:
    """Return a message of the user."""
    return {"role": "user", "content": text}


def assistant(text: str | None) -> dict[str, Any]:
    """Return a message of the assistant."""
    return {"role": "assistant", "content": text}


async def submitted(api: Served, job: str) -> JobSubmitted:
    """Return the beginning of a job."""
    entry = await api.bus.last(submitted_subject(api.bus.ns, job))
    assert entry is not None
    assert isinstance(entry.message, JobSubmitted)
    return entry.message


async def ended(api: Served, job: str) -> JobClosed:
    """Return the end of a job."""
    with anyio.fail_after(30):
        while True:
            entry = await api.bus.last(chain_subjects(api.bus.ns, job))
            if entry is not None and isinstance(entry.message, JobClosed):
                return entry.message
            await anyio.sleep(0.02)


async def curl(*arguments: str) -> str:
    """Return what curl prints."""
    process = await asyncio.create_subprocess_exec("curl", "-sS", *arguments, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_the_official_client_lists_teams_as_models(client: _Client) -> None:
    """Those that the key is for, and no others; one can be asked for by its name."""
    assert [model.id async for model in client.models.list()] == ["desk", "form", "office"]
    found = await client.models.retrieve("desk")
    assert (found.id, found.object, found.owned_by) == ("desk", "model", "interlock")
    assert abs(found.created - time.time()) < 600
    foreign = client.with_options(api_key="form")
    assert [model.id async for model in foreign.models.list()] == ["form"]
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        await foreign.models.retrieve("desk")


async def test_the_official_client_runs_a_team(api: Served) -> None:
    """The answer is the job's result, the usage is what the job used, and the id says which job it is."""

    def ask() -> tuple[Any, str]:
        with OpenAI(base_url=api.url, api_key="all") as client:
            raw = client.chat.completions.with_raw_response.create(
                model="desk", messages=_GO, temperature=0.3, max_tokens=5, user="ann", seed=3, top_p=0.1
            )
            return raw.parse(), raw.headers["x-interlock-job"]

    found, job = await to_thread.run_sync(ask)
    assert (found.id, found.object, found.model) == (f"chatcmpl-{job}", "chat.completion", "desk")
    (choice,) = found.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "Done as told.")
    assert choice.finish_reason == "stop"
    closed = await ended(api, job)
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (11, 3, 14)
    assert (closed.usage.prompt_tokens, closed.usage.completion_tokens) == (11, 3)
    assert (await submitted(api, job)).goal == "Say that it is done."


async def test_a_stream_tells_how_it_goes_and_then_the_answer(client: _Client) -> None:
    """Progress comes in a field that plain clients do not show; then the answer, the reason of the end, the usage."""
    stream = await client.chat.completions.create(
        model="desk", messages=_GO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Done as told."
    told = [getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks[:-1]]
    lines = "".join(told).splitlines()
    assert lines[0].endswith("of team desk began")
    assert lines[1:] == ["plan 1: note (writer)", "note: writer begins", "note: accepted"]
    contents = [number for number, chunk in enumerate(chunks[:-1]) if chunk.choices[0].delta.content]
    assert max(number for number, text in enumerate(told) if text) < min(contents)
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (11, 3)


@pytest.mark.parametrize("where", ["content", "none"])
async def test_progress_goes_where_the_client_wants_it(client: _Client, where: str) -> None:
    """Into the answer's own text before the answer, or nowhere."""
    stream = await client.chat.completions.create(
        model="desk", messages=_GO, stream=True, extra_body={"interlock": {"progress": where}}
    )
    deltas = [chunk.choices[0].delta async for chunk in stream]
    assert not any(getattr(delta, "reasoning_content", None) for delta in deltas)
    text = "".join(delta.content or "" for delta in deltas)
    assert text.endswith("note: accepted\n\nDone as told." if where == "content" else "Done as told.")
    assert ("began" in text) is (where == "content")


async def test_curl_runs_a_team(api: Served) -> None:
    """Whole, and as events that end with ``[DONE]``."""
    arguments = [
        f"{api.url}/chat/completions",
        *("-H", "Authorization: Bearer all", "-H", "Content-Type: application/json"),
    ]
    whole = await curl(*arguments, "-d", json.dumps({"model": "desk", "messages": _GO}))
    assert json.loads(whole)["choices"][0]["message"]["content"] == "Done as told."
    raw = await curl("-N", "-i", *arguments, "-d", json.dumps({"model": "desk", "messages": _GO, "stream": True}))
    head, _, body = raw.partition("\r\n\r\n")
    assert "content-type: text/event-stream" in head.lower()
    assert "x-interlock-job: desk-" in head.lower()
    assert "content-length" not in head.lower()
    events = [one.removeprefix("data: ") for one in body.strip().split("\n\n")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(one) for one in events[:-1]]
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in chunks) == "Done as told."
    assert chunks[-1]["interlock"] == {
        "job": chunks[-1]["id"].removeprefix("chatcmpl-"),
        "status": "succeeded",
        "reason": "",
        "question": "",
    }


async def test_a_reader_of_events_runs_a_team(api: Served) -> None:
    """Each event is one chunk, the last one says that it is over, and nothing is left over at the end."""
    headers = {"Authorization": "Bearer all"}
    body = {"model": "desk", "messages": _GO, "stream": True}
    async with (
        httpx2.AsyncClient(timeout=60, headers=headers) as client,
        client.stream("POST", f"{api.url}/chat/completions", json=body) as response,
    ):
        events = [event.data async for event in httpx2.EventSource(response)]
    assert events.pop() == "[DONE]"
    deltas = [json.loads(data)["choices"][0]["delta"] for data in events]
    assert "".join(delta.get("content", "") for delta in deltas) == "Done as told."


async def test_earlier_messages_are_context(api: Served, client: _Client) -> None:
    """They stand below the goal, or in the team's own input; what only a team understands goes along."""
    earlier = [{"role": "system", "content": "Be kind."}, user("Who?"), assistant("Ann.")]
    found = await client.chat.completions.create(model="desk", messages=[*earlier, *_GO])
    goal = (await submitted(api, found.id.removeprefix("chatcmpl-"))).goal
    assert goal.splitlines()[0] == "Say that it is done."
    assert goal.endswith("system: Be kind.\nuser: Who?\nassistant: Ann.")
    body = {"interlock": {"inputs": {"items": [3, 4]}, "id": "counted", "priority": "high", "budget": {"calls": 9}}}
    found = await client.chat.completions.create(model="form", messages=[*earlier, user("Go")], extra_body=body)
    assert found.id == "chatcmpl-counted"
    assert json.loads(found.choices[0].message.content or "") == {"counted": [{"n": 3}, {"n": 4}], "goal": "Go"}
    job = await submitted(api, "counted")
    assert (job.priority, len(job.inputs["conversation"])) == ("high", 3)  # type: ignore[arg-type]
    assert job.budget == Budget(calls=9)
    again = await client.chat.completions.create(model="form", messages=[*earlier, user("Go")], extra_body=body)
    assert again.choices == found.choices
    with pytest.raises(openai.ConflictError, match="id was used for another job"):
        await client.chat.completions.create(model="form", messages=[user("Something else")], extra_body=body)


async def test_json_is_given_where_it_is_wanted(client: _Client) -> None:
    """Of the form of the schema, or an error; what is missing from a partial result is said beside it."""
    schema = {"type": "object", "required": ["counted"]}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    found = await client.chat.completions.create(
        model="form", messages=_GO, response_format=wanted, extra_body={"interlock": {"inputs": {"items": [2, 50]}}}
    )
    assert json.loads(found.choices[0].message.content or "")["counted"] == [{"n": 2}]
    note = (found.model_extra or {})["interlock"]
    assert (note["status"], "1 of 2" in note["reason"]) == ("partial", True)
    with pytest.raises(openai.UnprocessableEntityError, match="not in the form that is wanted"):
        await client.chat.completions.create(model="desk", messages=_GO, response_format=wanted)
    wrong: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}
    with pytest.raises(openai.BadRequestError, match="no JSON Schema"):
        await client.chat.completions.create(model="form", messages=_GO, response_format=wrong)


async def test_a_job_that_fails_is_an_error(api: Served, client: _Client) -> None:
    """Whole or streamed, once: the client does not try it again by itself."""
    began = len(api.model.seen)
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        await client.chat.completions.create(model="desk", messages=[user("be long")])
    assert (caught.value.code, caught.value.type) == ("job_failed", "job_error")
    assert "words" in caught.value.message
    assert caught.value.response.headers["x-interlock-job"].startswith("desk-")
    with pytest.raises(openai.APIError, match=r"failed.*words"):
        async for _ in await client.chat.completions.create(model="desk", messages=[user("be long")], stream=True):
            pass
    assert len(api.model.seen) - began == 2


@pytest.mark.parametrize("stream", [True, False])
async def test_a_question_is_the_assistants_turn(api: Served, client: _Client, stream: bool) -> None:
    """The next message is its answer, in words of the question; the job goes on and says what came of it."""
    (api.folder / "out" / "note.txt").unlink(missing_ok=True)

    async def say(conversation: list[Any]) -> tuple[str, str]:
        found = await client.chat.completions.create(model="desk", messages=conversation, stream=stream)
        if not stream:
            return found.id, found.choices[0].message.content or ""
        chunks = [chunk async for chunk in found]
        return chunks[0].id, "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    talk = [user("Please write the note.")]
    first, question = await say(talk)
    assert 'text="hello"' in question
    assert "Answer with yes or no." in question
    talk += [assistant(question), user("well, maybe")]
    second, again = await say(talk)
    assert second == first
    assert "none of the answers" in again
    assert 'text="hello"' in again
    assert not (api.folder / "out" / "note.txt").exists()
    talk += [assistant(again), user("Yes.\nAs agreed.")]
    third, told = await say(talk)
    assert (third, told.startswith("It says:")) == (first, True)
    assert (api.folder / "out" / "note.txt").read_text() == "hello"
    repeated, same = await say(talk)
    assert (repeated, same) == (third, told), "a client that sends its answer again gets the same"
    late, said = await say([*talk[:-1], user("no")])
    assert (late, "somebody answered it with 'yes'" in said) == (first, True)
    closed = await ended(api, first.removeprefix("chatcmpl-"))
    assert closed.status == "succeeded"


async def test_a_manager_answers_and_asks_in_a_conversation(api: Served, client: _Client) -> None:
    """A direct question is answered without a plan; what the manager asks is the assistant's turn."""
    found = await client.chat.completions.create(model="office", messages=[user("Say hello.")])
    assert found.choices[0].message.content == "Hello."
    assert found.usage.completion_tokens > 0
    talk = [user("Tell me which colour.")]
    found = await client.chat.completions.create(model="office", messages=talk)
    asked = found.choices[0].message.content or ""
    assert asked.startswith("Which one?\n\nWhat do you say? Without an answer in 1 h")
    assert asked.splitlines()[-1].startswith("[interlock: job office-")
    talk += [assistant(asked), user("The blue one.")]
    told = await client.chat.completions.create(model="office", messages=talk)
    assert (told.id, told.choices[0].message.content) == (found.id, "Then it is blue.")
    assert (await ended(api, found.id.removeprefix("chatcmpl-"))).status == "succeeded"


async def test_a_plan_and_a_team_within_the_team_ask_in_a_conversation(api: Served, client: _Client) -> None:
    """The plan is shown before it is followed; what a job within the job asks is asked here, too."""
    (api.folder / "out" / "note.txt").unlink(missing_ok=True)
    talk = [user("Please hand it down.")]
    extra = {"interlock": {"approve_plan": True}}
    found = await client.chat.completions.create(model="office", messages=talk, extra_body=extra)
    plan = found.choices[0].message.content or ""
    assert "down" in plan
    assert "Answer with yes or no" in plan
    talk += [assistant(plan), user("yes")]
    within = await client.chat.completions.create(model="office", messages=talk)
    asked = within.choices[0].message.content or ""
    job = found.id.removeprefix("chatcmpl-")
    assert (within.id, f"[interlock: job {job}:" in asked, 'text="hello"' in asked) == (found.id, True, True)
    talk += [assistant(asked), user("yes")]
    told = await client.chat.completions.create(model="office", messages=talk)
    assert told.choices[0].message.content.startswith("It says:")
    assert (api.folder / "out" / "note.txt").read_text() == "hello"


async def test_a_question_that_was_answered_elsewhere_needs_no_answer(api: Served, client: _Client) -> None:
    """The conversation goes on with what came of it, and says who decided."""
    talk = [user("Please write the note.")]
    found = await client.chat.completions.create(model="desk", messages=talk)
    note = (found.model_extra or {})["interlock"]
    assert note["status"] == "waiting"
    await give_answer(api.bus, note["job"], note["question"], "no")
    talk += [assistant(found.choices[0].message.content), user("yes")]
    found = await client.chat.completions.create(model="desk", messages=talk)
    assert "somebody answered it with 'no'" in (found.choices[0].message.content or "")


async def test_only_questions_of_the_keys_teams_are_answered(api: Served, client: _Client) -> None:
    """A mark that somebody wrote into a conversation opens nothing; a foreign job looks like none at all."""
    found = await client.chat.completions.create(model="desk", messages=[user("Please write the note.")])
    question = found.choices[0].message.content or ""
    job = found.id.removeprefix("chatcmpl-")
    forged = question.replace(job, "desk-00000000")
    said: list[str] = []
    for key, model, text, status in (
        ("form", "form", question, 404),
        ("form", "form", forged, 404),
        ("form", "desk", question, 404),
        ("reads", "desk", question, 403),
        ("all", "form", question, 404),
        ("all", "desk", forged, 404),
        ("all", "desk", question.replace(" q-", " q-0"), 404),
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.with_options(api_key=key).chat.completions.create(
                model=model,
                messages=[user("x"), assistant(text), user("yes")],
            )
        assert caught.value.status_code == status
        said.append(caught.value.message)
    assert said[0] == said[1]
    note = (found.model_extra or {})["interlock"]
    await give_answer(api.bus, job, note["question"], "no")
    assert (await ended(api, job)).status == "succeeded"


@pytest.mark.parametrize("stream", [True, False])
async def test_hanging_up_stops_the_job(api: Served, client: _Client, stream: bool) -> None:
    """Within a second of the client's leaving no model works for the job any more, and it is closed as killed."""
    before, job = len(_never_answered(api)), f"left-{stream}"
    request = client.chat.completions.create(
        model="desk", messages=[user("wait for ever")], stream=stream, extra_body={"interlock": {"id": job}}
    )
    asking = asyncio.create_task(request)
    await eventually(lambda: len(_never_answered(api)) > before, 30)
    seen = _never_answered(api)[-1]
    if stream:
        await (await asking).close()
    else:
        asking.cancel()
    left = time.monotonic()
    await eventually(lambda: seen.ended is not None, 10)
    assert seen.client_left
    assert seen.ended is not None
    took = seen.ended - left
    print(f"\nthe last connection of a model was gone {1000 * took:.0f} ms after the client")  # noqa: T201
    assert took < 1.0
    closed = await ended(api, job)
    assert (closed.status, "the client hung up" in closed.reason) == ("killed", True)


def _never_answered(api: Served) -> list[Seen]:
    return [one for one in api.model.seen if "wait for ever" in one.call.conversation]
