"""Problems in the OpenAI API's words."""

import pytest

from interlock.runtime.api.chat_errors import error_of, is_chat_path
from interlock.runtime.api.problems import (
    BodyTooLarge,
    BrokerAway,
    InputsUnusable,
    InvalidField,
    JobDiffers,
    KeyLacksScope,
    KeyWanted,
    Problem,
    RequestInvalid,
    TooBusy,
    TooManyRequests,
    Unexpected,
)


@pytest.mark.parametrize(
    ("problem", "status", "kind", "code", "again"),
    [
        (KeyWanted(), 401, "authentication_error", "invalid_api_key", False),
        (KeyLacksScope("read"), 403, "permission_error", "insufficient_permissions", False),
        (JobDiffers(), 409, "invalid_request_error", "job_differs", False),
        (BodyTooLarge(5), 413, "invalid_request_error", "body_too_large", False),
        (InputsUnusable("no"), 400, "invalid_request_error", "invalid_inputs", False),
        (TooManyRequests(3), 429, "rate_limit_error", "rate_limit_exceeded", True),
        (TooBusy(), 503, "server_error", "too_busy", True),
        (BrokerAway(), 503, "server_error", "broker_away", False),
        (Unexpected(), 500, "server_error", "internal_error", False),
    ],
)
def test_a_problem_keeps_its_sense(problem: Problem, status: int, kind: str, code: str, again: bool) -> None:
    """Its sentence stands as it is; only where nothing was begun is a client told to try again."""
    told = {"type": f"urn:interlock:problem:{problem.slug}", "detail": problem.detail}
    found, body, retry = error_of(told, problem.status)
    assert (found, body.error.type, body.error.code, retry) == (status, kind, code, again)
    assert (body.error.message, body.error.param) == (problem.detail, None)


def test_the_field_that_is_wrong_is_named() -> None:
    """As the API names them: without the word body."""
    problem = RequestInvalid([InvalidField(at="body.messages.0.role", detail="no")])
    errors = [one.model_dump() for one in problem.errors]
    _, body, _ = error_of({"type": "x:request-invalid", "detail": "d", "errors": errors}, 422)
    assert body.error.param == "messages.0.role"


def test_a_problem_without_words_is_still_an_error() -> None:
    """Whatever a problem lacks, the status says something."""
    status, body, again = error_of({}, 404)
    assert (status, body.error.message, again) == (404, "Not Found", False)


def test_only_the_paths_of_the_openai_api_are_put_into_other_words() -> None:
    """And what is below them."""
    assert all(map(is_chat_path, ["/v1/models", "/v1/models/x", "/v1/chat/completions", "/v1/chat/x"]))
    assert not any(map(is_chat_path, ["/v1/modelsx", "/v1/jobs", "/", "/v1/chat", "/healthz"]))
