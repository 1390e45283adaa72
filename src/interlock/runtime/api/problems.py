"""What an API says when it does not do what it was asked: problems (RFC 9457), one class for each condition."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from interlock.protocol.base import Strict
from interlock.runtime.bus_errors import BusError

__all__ = [
    "AddressForeign",
    "AnswerUnusable",
    "BodyNotJson",
    "BodyTooLarge",
    "BodyTooSlow",
    "BrokerAway",
    "InputsUnusable",
    "InvalidField",
    "JobDiffers",
    "JobForbidden",
    "JobUnknown",
    "KeyLacksScope",
    "KeyLacksTeams",
    "KeyWanted",
    "MediaTypeWrong",
    "MethodWrong",
    "PathUnknown",
    "Problem",
    "ProblemBody",
    "QuestionOver",
    "QuestionUnknown",
    "RequestInvalid",
    "TeamUnknown",
    "TeamUnusable",
    "TooBusy",
    "TooManyRequests",
    "Unexpected",
    "VersionTooOld",
    "answer_problems",
    "documented",
]

_log = logging.getLogger(__name__)

_MEDIA_TYPE = "application/problem+json"
_URN = "urn:interlock:problem:"
_SHOWN = 20
"""The most fields of a request that are told to be wrong."""


class InvalidField(Strict):
    """One thing that is wrong with a request."""

    at: str
    """Where, such as ``body.inputs`` or ``query.limit``."""
    detail: str


class ProblemBody(Strict):
    """A problem (RFC 9457)."""

    type: str
    """Which condition it is, such as ``urn:interlock:problem:job-unknown``."""
    title: str
    """The condition in words, always the same for a type."""
    status: int
    detail: str
    """What was wrong here, and what would be right."""
    errors: tuple[InvalidField, ...] = ()
    """What is wrong with each field of the request."""


class Problem(Exception):
    """A condition that ends a request with an error status. Each subclass is one condition."""

    status: ClassVar[int]
    slug: ClassVar[str]
    """What its type is called."""
    title: ClassVar[str]

    def __init__(self, detail: str, headers: Mapping[str, str] | None = None) -> None:
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors: tuple[InvalidField, ...] = ()
        super().__init__(detail)

    def response(self) -> Response:
        """Return the answer to the request."""
        body = ProblemBody(
            type=f"{_URN}{self.slug}", title=self.title, status=self.status, detail=self.detail, errors=self.errors
        )
        content = body.model_dump(mode="json", exclude_defaults=True)
        return JSONResponse(content, self.status, self.headers, _MEDIA_TYPE)


class KeyWanted(Problem):
    """The request has no key, or one that is not known."""

    status, slug, title = 401, "key-wanted", "A key is wanted"

    def __init__(self) -> None:
        super().__init__(
            "send a known key: Authorization: Bearer KEY", {"WWW-Authenticate": 'Bearer realm="interlock"'}
        )


class KeyLacksScope(Problem):
    """The key is not for this."""

    status, slug, title = 403, "key-lacks-scope", "The key is not for this"

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__(f"this needs a key with the scope {scope}")


class KeyLacksTeams(Problem):
    """The key is not for all teams."""

    status, slug, title = 403, "key-lacks-teams", "The key is not for all teams"

    def __init__(self) -> None:
        super().__init__("this is about all teams, and needs a key for all of them")


class AddressForeign(Problem):
    """A server without keys is asked under another name, or by a page of another site."""

    status, slug, title = 403, "address-foreign", "Asked for under a foreign name"

    def __init__(self) -> None:
        super().__init__(
            "a server without keys answers only to who asks for it as localhost, and to no other site's page"
        )


class PathUnknown(Problem):
    """There is nothing at the path."""

    status, slug, title = 404, "path-unknown", "There is nothing here"

    def __init__(self) -> None:
        super().__init__("there is nothing at this path; /openapi.json says what there is")


class JobUnknown(Problem):
    """There is no such job, or none that the key is for."""

    status, slug, title = 404, "job-unknown", "There is no such job"

    def __init__(self) -> None:
        super().__init__("there is no such job among those of this key's teams")


class TeamUnknown(Problem):
    """There is no such team, or none that the key is for."""

    status, slug, title = 404, "team-unknown", "There is no such team"

    def __init__(self) -> None:
        super().__init__("there is no such team among those that are up and that this key is for; see /v1/teams")


class QuestionUnknown(Problem):
    """The job has no such question."""

    status, slug, title = 404, "question-unknown", "There is no such question"

    def __init__(self) -> None:
        super().__init__("the job has no such question; its questions are at /v1/jobs/{id}/questions")


class MethodWrong(Problem):
    """The path has no such method."""

    status, slug, title = 405, "method-wrong", "Not with this method"

    def __init__(self, allowed: str) -> None:
        super().__init__("this path cannot be used with this method", {"Allow": allowed} if allowed else {})


class JobDiffers(Problem):
    """The id is that of another job."""

    status, slug, title = 409, "job-differs", "The id is taken"

    def __init__(self) -> None:
        super().__init__("this id was used for another job: an id is one job for ever, choose another one")


class JobForbidden(Problem):
    """A standing kill order is for this job or its team."""

    status, slug, title = 409, "job-forbidden", "It is killed"

    def __init__(self, order: str) -> None:
        super().__init__(f"{order}: it has to be resumed first")


class QuestionOver(Problem):
    """The question needs no answer any more."""

    status, slug, title = 409, "question-over", "The question is over"


class VersionTooOld(Problem):
    """Machines are there that read an older version of messages, which cannot say this."""

    status, slug, title = 409, "version-too-old", "Not all machines can read it"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class TeamUnusable(Problem):
    """The team cannot be given a job as it is now."""

    status, slug, title = 409, "team-unusable", "The team cannot do it now"

    def __init__(self) -> None:
        super().__init__("what the team's file names cannot be read by this server; its operator finds more in the log")


class BodyTooLarge(Problem):
    """The body is larger than is taken."""

    status, slug, title = 413, "body-too-large", "The body is too large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"a body may have {limit} bytes", {"Connection": "close"})


class BodyTooSlow(Problem):
    """The body did not come in time."""

    status, slug, title = 408, "body-too-slow", "The body did not come in time"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a body may take {seconds:g} s", {"Connection": "close"})


class MediaTypeWrong(Problem):
    """The body is said to be something other than JSON."""

    status, slug, title = 415, "media-type-wrong", "The body is not said to be JSON"

    def __init__(self) -> None:
        super().__init__("send the body with Content-Type: application/json")


class BodyNotJson(Problem):
    """The body is no JSON that can be taken."""

    status, slug, title = 400, "body-not-json", "The body is no JSON"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the body is no JSON that can be taken: {reason}")


class RequestInvalid(Problem):
    """Fields of the request are missing, unknown or wrong."""

    status, slug, title = 422, "request-invalid", "The request does not fit"

    def __init__(self, errors: Sequence[InvalidField]) -> None:
        first = f"{errors[0].at}: {errors[0].detail}" if errors else "it does not fit"
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        super().__init__(f"{first}{more}")
        self.errors = tuple(errors[:_SHOWN])


class InputsUnusable(Problem):
    """The inputs are not those that the team wants."""

    status, slug, title = 422, "inputs-unusable", "The inputs do not fit"


class AnswerUnusable(Problem):
    """The question does not offer this answer."""

    status, slug, title = 422, "answer-unusable", "The question does not offer this answer"


class TooManyRequests(Problem):
    """The key, or the address where there is none, asked too often."""

    status, slug, title = 429, "too-many-requests", "Too many requests"

    def __init__(self, seconds: int) -> None:
        super().__init__(f"ask again in {seconds} s", {"Retry-After": str(seconds)})


class Unexpected(Problem):
    """A mistake in this server."""

    status, slug, title = 500, "unexpected", "Something went wrong here"

    def __init__(self) -> None:
        super().__init__("this is a mistake of the server; its operator finds more in the log")


class BrokerAway(Problem):
    """The broker is out of reach, or has no room."""

    status, slug, title = 503, "broker-away", "The broker is away"

    def __init__(self) -> None:
        super().__init__("nothing can be read or written just now; ask again", {"Retry-After": "1"})


class TooBusy(Problem):
    """As much is being done already as is done at once."""

    status, slug, title = 503, "too-busy", "Too much at once"

    def __init__(self) -> None:
        super().__init__("as much is being done already as is done at once; ask again", {"Retry-After": "1"})


def documented(*problems: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """Return the answers of a path that are problems, as FastAPI's ``responses`` wants them."""
    titles: dict[int | str, list[str]] = {}
    for problem in problems:
        titles.setdefault(problem.status, []).append(f"{problem.title} (`{problem.slug}`)")
    schema = {"$ref": "#/components/schemas/ProblemBody"}
    return {
        status: {"description": ". ".join(told), "content": {_MEDIA_TYPE: {"schema": schema}}}
        for status, told in titles.items()
    }


def answer_problems(app: FastAPI) -> None:
    """Have the app answer every error with a problem."""

    async def problem(_: Request, error: Exception) -> Response:
        return _problem_of(error).response()

    for kind in (Problem, RequestValidationError, HTTPException, BusError, Exception):
        app.add_exception_handler(kind, problem)


def _problem_of(error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return RequestInvalid([_invalid(one) for one in error.errors()])
        case HTTPException(status_code=HTTPStatus.METHOD_NOT_ALLOWED):
            return MethodWrong((error.headers or {}).get("Allow", ""))
        case HTTPException(status_code=HTTPStatus.NOT_FOUND):
            return PathUnknown()
        case HTTPException(status_code=HTTPStatus.BAD_REQUEST):
            return BodyNotJson("it cannot be parsed")
        case BusError():
            _log.warning("%s: %s", type(error).__name__, error)
            return BrokerAway()
        case _:
            _log.error("a request failed", exc_info=error)
            return Unexpected()


def _invalid(error: Mapping[str, Any]) -> InvalidField:
    return InvalidField(at=".".join(str(part) for part in error["loc"]), detail=str(error["msg"]))
