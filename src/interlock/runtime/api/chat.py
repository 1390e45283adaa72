"""A team is a model: the paths of the OpenAI API.

A conversation is a job. What the client sends last is its goal, or the answer to what the job asked; a client that
hangs up stops it.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.responses import Response

from interlock.protocol.lineage import root_of
from interlock.protocol.team import Team
from interlock.runtime.api.access import job_for
from interlock.runtime.api.chat_answers import Chat, Held, PlainAnswer, StreamedAnswer
from interlock.runtime.api.chat_errors import error_response
from interlock.runtime.api.chat_jobs import (
    CONVERSATION,
    Conversation,
    Mark,
    as_input,
    goal_of,
    read_conversation,
    schema_of,
)
from interlock.runtime.api.chat_turns import answer_question
from interlock.runtime.api.chat_wire import (
    ChatError,
    ChatRequest,
    Completion,
    ErrorBody,
    ModelCard,
    ModelList,
    refusal,
)
from interlock.runtime.api.context import ApiContext, InContext
from interlock.runtime.api.keys import Caller, Scope, caller_with
from interlock.runtime.api.problems import JobUnknown, KeyLacksScope, QuestionUnknown
from interlock.runtime.api.submitting import Wanted, submit_job
from interlock.runtime.presence import PublishedTeam

__all__ = ["ConversationOver", "ModelUnknown", "add_chat", "complete", "list_models", "show_model"]

_Reader = Annotated[Caller, Depends(caller_with("read"))]

_ERRORS = {
    400: "The request is none that a team can answer",
    401: "A key is wanted",
    403: "The key is not for this",
    404: "There is no such team, or none that the key is for",
    408: "The body did not come in time",
    409: "The id is that of another job, or the job or its team is killed, or the team cannot do it now",
    413: "The body is too large",
    415: "The body is not said to be JSON",
    422: "The job ended without a result, or without one of the form that is wanted",
    429: "Too many requests",
    500: "A mistake in this server",
    503: "The broker is away, or too much is done at once",
}


def _told(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return errors as FastAPI's ``responses`` wants them."""
    return {status: {"model": ErrorBody, "description": _ERRORS[status]} for status in statuses}


_router = APIRouter(prefix="/v1", tags=["a team as a model"])


class ModelUnknown(ChatError):
    """There is no team of this name, or none that the key is for."""

    def __init__(self, model: str) -> None:
        self.model = model
        told = f"the model {model[:80]!r} does not exist: a model is a team that is up and that this key is for"
        super().__init__(404, told, kind="invalid_request_error", code="model_not_found", param="model")


class ConversationOver(ChatError):
    """The conversation waits with a question that is not there, or not one of this team."""

    def __init__(self, model: str) -> None:
        told = (
            "this conversation waits with a question that is not there, or not one of the team "
            f"{model[:80]!r}: go on with the team that asked, or begin a new conversation"
        )
        super().__init__(404, told, kind="invalid_request_error", code="job_not_found", param="messages")


def add_chat(app: FastAPI) -> None:
    """Add the paths of the OpenAI API to an app; ``OpenAIErrors`` around it says every error there as that API does."""
    app.state.held = Held()
    app.state.is_ending = False
    app.include_router(_router)
    app.add_exception_handler(ChatError, _error)


async def _error(_: Request, error: Exception) -> Response:
    if not isinstance(error, ChatError):
        raise error
    return error_response(error)


@_router.get("/models", responses=_told(401, 403, 429, 500, 503))
async def list_models(context: InContext, caller: _Reader) -> ModelList:
    """List the teams that were brought up and that the key is for: each is a model."""
    teams = await context.teams()
    return ModelList(data=tuple(_card(teams[name]) for name in sorted(teams) if caller.may_see(name)))


@_router.get("/models/{model}", responses=_told(401, 403, 404, 429, 500, 503))
async def show_model(model: str, context: InContext, caller: _Reader) -> ModelCard:
    """Show one team as a model."""
    return _card(await _team(context, caller, model))


@_router.post(
    "/chat/completions",
    response_model=Completion,
    responses={
        200: {"description": "The assistant's turn.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **_told(*_ERRORS),
    },
)
async def complete(body: ChatRequest, request: Request, context: InContext, caller: _Reader) -> Response:
    """Give the last message of a conversation to a team, as a goal or as the answer to what it asked.

    The answer comes once the team has one, or asks something. A client that closes the connection before stops the job.
    """
    if (wrong := refusal(body)) is not None:
        raise wrong
    conversation = read_conversation(body.messages)
    schema_of(body.response_format)  # before anything is begun
    published = await _team(context, caller, body.model)
    held: Held = request.app.state.held
    if conversation.mark is None:
        chat = await _begun(context, held, caller, body, _wanted(body, conversation, published))
    else:
        chat = await _gone_on(context, held, caller, body, conversation.mark, conversation.last)
    return StreamedAnswer(chat) if body.stream else PlainAnswer(chat)


def _card(published: PublishedTeam) -> ModelCard:
    team = published.team
    return ModelCard(id=team.team, created=int(published.at.timestamp()), description=team.description)


async def _team(context: ApiContext, caller: Caller, model: str) -> PublishedTeam:
    """Return a team that the caller may know of.

    :raises ModelUnknown: there is none
    """
    found = (await context.teams()).get(model) if caller.may_see(model) else None
    if found is None:
        raise ModelUnknown(model)
    return found


def _wanted(body: ChatRequest, conversation: Conversation, published: PublishedTeam) -> Wanted:
    """Return the job that a conversation is."""
    inputs, taken = dict(body.extra.inputs), _takes_conversation(published.team)
    if taken and CONVERSATION not in inputs:
        inputs[CONVERSATION] = as_input(conversation, published.team.inputs[CONVERSATION].type)
    return Wanted(
        published,
        goal_of(conversation, body.response_format, with_earlier=not taken),
        inputs,
        body.extra.id,
        budget=body.extra.budget,
        priority=body.extra.priority,
        approve_plan=body.extra.approve_plan,
    )


def _takes_conversation(team: Team) -> bool:
    return CONVERSATION in team.inputs and as_input(Conversation(""), team.inputs[CONVERSATION].type) is not None


async def _begun(context: ApiContext, held: Held, caller: Caller, body: ChatRequest, wanted: Wanted) -> Chat:
    """Submit a job; one that was submitted before is waited for.

    :raises KeyLacksScope: the key is not for submitting
    :raises Problem: as ``submit_job``
    """
    _demand(caller, "submit")
    job, _ = await submit_job(context, wanted)
    return Chat(context, held, body, job)


async def _gone_on(context: ApiContext, held: Held, caller: Caller, body: ChatRequest, mark: Mark, said: str) -> Chat:
    """Answer what a job asked, and go on with it.

    :raises KeyLacksScope: the key is not for answering
    :raises ConversationOver: there is no such question in a job of the team
    """
    _demand(caller, "answer")
    job = root_of(mark.job)
    try:
        known = await job_for(context, caller, job)
        if known.team != body.model:
            raise ConversationOver(body.model)
        told = await answer_question(context, mark, said)
    except (JobUnknown, QuestionUnknown):
        raise ConversationOver(body.model) from None
    before, asked = (told, None) if isinstance(told, str) else ("", told)
    return Chat(context, held, body, job, before, goes_on=True, asked=asked)


def _demand(caller: Caller, scope: Scope) -> None:
    if scope not in caller.scopes:
        raise KeyLacksScope(scope)
