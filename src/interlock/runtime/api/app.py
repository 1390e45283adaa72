"""The app of the HTTP API: its paths, what guards them, and how it describes itself."""

from fastapi import FastAPI

from interlock._version import __version__
from interlock.runtime.api import jobs, questions
from interlock.runtime.api.context import ApiContext
from interlock.runtime.api.problems import answer_problems

__all__ = ["make_app"]


def make_app(context: ApiContext) -> FastAPI:
    """Return the app that answers from ``context``."""
    app = FastAPI(title="Interlock", version=__version__)
    app.state.context = context
    answer_problems(app)
    app.include_router(jobs.router)
    app.include_router(questions.router)
    return app
