"""Where an agent's model is: its settings and the environment become an endpoint, and an endpoint a chat model."""

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import SplitResult, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from interlock.backends.chat import StreamingChatModel
from interlock.backends.errors import (
    LocalEngineNotRunning,
    ModelKeyInvalid,
    ModelNotConfigured,
    ModelUnreachable,
    ModelUrlInvalid,
    VllmNotRunning,
)
from interlock.backends.retry import RetrySettings
from interlock.protocol.base import canonical_json
from interlock.protocol.team import Engine, ModelSettings

__all__ = [
    "API_KEY_ENV",
    "LOCAL_KEY_ENV",
    "LOCAL_NAME_ENV",
    "LOCAL_URL_ENV",
    "MODEL_ENV",
    "MODEL_URL_ENV",
    "VLLM_KEY_ENV",
    "VLLM_SERVERS_ENV",
    "Endpoint",
    "knock",
    "open_chat",
    "resolve_endpoint",
    "served_as",
]

MODEL_URL_ENV = "INTERLOCK_MODEL_URL"
"""Base URL of the API that every agent uses, whatever the team file says; several that serve the same model are
separated by commas."""
MODEL_ENV = "INTERLOCK_MODEL"
"""The model's name at that API, or at the team file's."""
API_KEY_ENV = "INTERLOCK_API_KEY"
"""The key for that API, and the default variable of ``model.api_key_env``."""
LOCAL_URL_ENV = "INTERLOCK_LOCAL_URL"
"""Where the engine ``local`` runs: whoever started it sets this for its child processes."""
LOCAL_NAME_ENV = "INTERLOCK_LOCAL_NAME"
"""The name of the model that it runs."""
LOCAL_KEY_ENV = "INTERLOCK_LOCAL_KEY"
"""The key that the engine ``local`` was started with."""
VLLM_SERVERS_ENV = "INTERLOCK_VLLM_SERVERS"
"""Where the vLLM servers run that were started for these settings: a JSON object of URLs by what ``served_as`` gives.
Whoever started them sets this for its child processes."""
VLLM_KEY_ENV = "INTERLOCK_VLLM_KEY"
"""The key that they were started with."""


_KNOCK_SECONDS = 5.0
_PATIENCE = 600.0
"""Seconds for which a server that is started again is waited for: loading a large model takes minutes."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model's API, ready to be used."""

    url: str
    """Base URL without credentials and without a slash at its end."""
    name: str | None = None
    """The model's name; None: the first that the server lists."""
    api_key: str | None = field(default=None, repr=False)
    """Bearer token; None: none is sent."""
    engine: Engine = "openai"
    timeout: float = 120.0
    """Seconds that one request may take, from its start to the last byte of the answer."""
    key_env: str = API_KEY_ENV
    """Where the key came from or should come from, for messages."""
    urls: tuple[str, ...] = ()
    """All base URLs, ``url`` the first of them, where several servers serve the same model; empty: there is one."""
    own: bool = False
    """Whether it was started here, and is started again when it dies: worth waiting for."""


def resolve_endpoint(settings: ModelSettings, environ: Mapping[str, str] = os.environ) -> Endpoint:
    """Return the endpoint that ``settings`` mean in this environment.

    With ``INTERLOCK_MODEL_URL`` every agent goes there, with ``INTERLOCK_MODEL`` as the model (left out: the first that
    the server lists) and ``INTERLOCK_API_KEY`` as the key: a key that the team file names is never sent to another URL
    than the team file's. What stands there is taken for vLLM only where the team file says so.

    :raises ModelNotConfigured: the engine ``openai`` has no URL, neither here nor there
    :raises ModelUrlInvalid: a URL is no http(s) URL, or holds credentials
    :raises ModelKeyInvalid: the key cannot be sent
    :raises LocalEngineNotRunning: the engine is ``local`` and ``INTERLOCK_LOCAL_URL`` is not set
    :raises VllmNotRunning: the engine is ``vllm`` without a URL and ``INTERLOCK_VLLM_SERVERS`` does not name its server
    """
    if named := environ.get(MODEL_URL_ENV):
        urls = tuple(url for url in map(str.strip, named.split(",")) if url) or (named,)
        return _endpoint(settings, environ, urls=urls, source=MODEL_URL_ENV, name=None, key_env=API_KEY_ENV)
    if settings.engine == "local":
        return _local_endpoint(settings, environ)
    if settings.url is None:
        if settings.engine == "vllm":
            return _vllm_endpoint(settings, environ)
        raise ModelNotConfigured(settings.engine)
    urls = (settings.url,) if isinstance(settings.url, str) else settings.url
    return _endpoint(settings, environ, urls=urls, source="model.url", name=settings.name, key_env=settings.api_key_env)


def served_as(settings: ModelSettings) -> str:
    """Return what tells the vLLM server for ``settings`` from those for others: the same for the same command line."""
    return sha256(canonical_json({"name": settings.name, "options": settings.options}).encode()).hexdigest()[:16]


def knock(endpoint: Endpoint) -> None:
    """Find out whether anything listens where a model should be; blocks for at most a few seconds for each URL.

    Behind a proxy nothing is tried: only the proxy can tell. Of several servers one is enough.

    :raises ModelUnreachable: nothing listens there
    """
    problem: ModelUnreachable | None = None
    for url in endpoint.urls or (endpoint.url,):
        try:
            _knock(url, endpoint)
        except ModelUnreachable as error:
            problem = problem or error
        else:
            return
    if problem is not None:
        raise problem


def _knock(url: str, endpoint: Endpoint) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), _KNOCK_SECONDS).close()
    except OSError as error:
        raise ModelUnreachable(url, endpoint.name, error.strerror or str(error)) from None


def open_chat(endpoint: Endpoint, retry: RetrySettings | None = None) -> StreamingChatModel:
    """Return a chat model for ``endpoint``; nothing is sent yet.

    It keeps its connections, so open one per process and endpoint and close it with ``aclose()`` in the end. The first
    call in a process imports aiohttp, which takes a few tenths of a second: call it before work arrives.
    """
    from interlock.backends.openai_client import OpenAIChat  # noqa: PLC0415 -- most commands ask no model

    retry = retry or RetrySettings(patience=_PATIENCE if endpoint.own else 0.0)
    if len(endpoint.urls) < 2:  # noqa: PLR2004 -- one is no choice
        return OpenAIChat(endpoint, retry)
    from interlock.backends.several import SeveralChats  # noqa: PLC0415 -- few have several

    return SeveralChats(endpoint, retry)


def _endpoint(
    settings: ModelSettings,
    environ: Mapping[str, str],
    *,
    urls: tuple[str, ...],
    source: str,
    name: str | None,
    key_env: str,
) -> Endpoint:
    checked = tuple(dict.fromkeys(_checked_url(url, source) for url in urls))
    return Endpoint(
        url=checked[0],
        name=environ.get(MODEL_ENV) or name,
        api_key=_key(environ, key_env),
        engine="vllm" if settings.engine == "vllm" else "openai",
        timeout=settings.timeout,
        key_env=key_env,
        urls=checked if len(checked) > 1 else (),
    )


def _vllm_endpoint(settings: ModelSettings, environ: Mapping[str, str]) -> Endpoint:
    servers = environ.get(VLLM_SERVERS_ENV)
    url = json.loads(servers).get(served_as(settings)) if servers else None
    if not url:
        raise VllmNotRunning(settings.name)
    return Endpoint(
        url=_checked_url(url, VLLM_SERVERS_ENV),
        name=None if "served-model-name" in settings.options else settings.name,
        api_key=_key(environ, VLLM_KEY_ENV),
        engine="vllm",
        timeout=settings.timeout,
        key_env=VLLM_KEY_ENV,
        own=True,
    )


def _local_endpoint(settings: ModelSettings, environ: Mapping[str, str]) -> Endpoint:
    url = environ.get(LOCAL_URL_ENV)
    if not url:
        raise LocalEngineNotRunning
    return Endpoint(
        url=_checked_url(url, LOCAL_URL_ENV),
        name=environ.get(LOCAL_NAME_ENV) or None,
        api_key=_key(environ, LOCAL_KEY_ENV),
        engine="local",
        timeout=settings.timeout,
        key_env=LOCAL_KEY_ENV,
    )


def _key(environ: Mapping[str, str], name: str) -> str | None:
    key = environ.get(name, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ModelKeyInvalid(name)
    return key or None


def _checked_url(url: str, source: str) -> str:
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # brackets that do not match, a port that is no number
        raise ModelUrlInvalid(url.rpartition("@")[2], source) from None
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        raise ModelUrlInvalid(_without_credentials(parts), source)
    return urlunsplit(parts).rstrip("/")


def _without_credentials(parts: SplitResult) -> str:
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
