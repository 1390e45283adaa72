"""The app of the HTTP API: its paths, what guards them, and how it describes itself."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from interlock._version import __version__
from interlock.runtime.api import jobs, kills, questions, teams
from interlock.runtime.api.bounds import Bounds
from interlock.runtime.api.chat import add_chat
from interlock.runtime.api.chat_errors import OpenAIErrors
from interlock.runtime.api.context import ApiContext
from interlock.runtime.api.events import EVENT_MODELS
from interlock.runtime.api.problems import (
    AddressForeign,
    BodyNotJson,
    BodyTooLarge,
    BodyTooSlow,
    BrokerAway,
    KeyLacksScope,
    KeyWanted,
    MediaTypeWrong,
    ProblemBody,
    RequestInvalid,
    TooBusy,
    TooManyRequests,
    answer_problems,
    documented,
)

__all__ = ["describe", "make_app"]

_REFERENCE = "#/components/schemas/{model}"
_DESCRIPTION = (
    "Give goals to teams of agents, follow what they do, answer what they ask, and stop them. Every error is a problem "
    "(RFC 9457) whose `type` says which condition it is."
)
_GUARDED = documented(
    AddressForeign,
    BodyNotJson,
    BodyTooLarge,
    BodyTooSlow,
    BrokerAway,
    KeyLacksScope,
    KeyWanted,
    MediaTypeWrong,
    RequestInvalid,
    TooBusy,
    TooManyRequests,
)
"""What any path that needs a key may answer."""


def make_app(context: ApiContext) -> FastAPI:
    """Return the app that answers from ``context``."""
    app = _paths()
    app.state.context = context
    app.add_middleware(Bounds, context=context)
    app.add_middleware(OpenAIErrors)  # the outermost: it puts what the bounds say into its own words, too
    return app


def describe() -> dict[str, Any]:
    """Return the OpenAPI document of the app."""
    return _paths().openapi()


def _paths() -> FastAPI:
    app = FastAPI(
        title="Interlock",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,  # the page of documents would load its scripts from somebody else's server
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    answer_problems(app)
    for router in (jobs.router, questions.router, kills.router, teams.router):
        app.include_router(router, responses=_GUARDED)
    app.include_router(teams.health_router)
    add_chat(app)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]  # as FastAPI's documentation has it
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        models = [(model, "serialization") for model in (ProblemBody, *EVENT_MODELS)]
        _, more = models_json_schema(models, ref_template=_REFERENCE)  # type: ignore[arg-type]
        schemas = document["components"]["schemas"]
        for name, schema in more["$defs"].items():
            schemas.setdefault(name, schema)
        app.openapi_schema = document
    return app.openapi_schema
