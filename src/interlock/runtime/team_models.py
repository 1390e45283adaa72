"""Whether what a team file says of a model fits together: engine, URLs, name and options."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from interlock.backends.vllm_command import OWN_OPTIONS
from interlock.protocol.base import Json
from interlock.protocol.team import ModelSettings
from interlock.runtime.yaml_positions import Location

__all__ = ["model_problems"]

_OPTION = re.compile(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*")


def model_problems(model: ModelSettings) -> Iterator[tuple[Location, str]]:
    """Yield every mistake in ``model``, with where in it that stands."""
    if model.url is not None:
        yield from _url_problems(model)
    elif model.engine == "vllm" and model.name is None:
        yield (), "'name' is missing: the model that vLLM is to serve; or name a server that runs already by 'url'"
    if model.options:
        yield from _options_problems(model)


def _url_problems(model: ModelSettings) -> Iterator[tuple[Location, str]]:
    if model.engine == "local":
        yield ("url",), "'url' is only for the engines openai and vllm, and this one is local: leave it out"
        return
    several = () if model.url is None or isinstance(model.url, str) else model.url
    for index, url in enumerate(several):
        if url.rstrip("/") in {earlier.rstrip("/") for earlier in several[:index]}:
            yield ("url", index), f"{url!r} stands here twice: name each server once"
        elif not _is_http_url(url):
            yield ("url", index), _no_url(url)
    if isinstance(model.url, str) and not _is_http_url(model.url):
        yield ("url",), _no_url(model.url)


def _no_url(url: str) -> str:
    return f"{url!r} is no URL of an API: expected something like http://host:8000/v1"


def _options_problems(model: ModelSettings) -> Iterator[tuple[Location, str]]:
    if model.engine != "vllm":
        message = f"'options' are only for the engine vllm, and this one is {model.engine}: leave them out"
        yield ("options",), message
        return
    if model.url is not None:
        message = "'options' are for a vLLM server that is started here, and 'url' names one that runs: leave one out"
        yield ("options",), message
        return
    for name, value in model.options.items():
        if problem := _option_problem(name, value):
            yield ("options", name), problem


def _option_problem(name: str, value: Json) -> str:
    spelt = name.replace("_", "-")
    if not _OPTION.fullmatch(name):
        return f"{name!r} is no option: expected a name as on vLLM's command line, without dashes before it"
    if spelt in OWN_OPTIONS:
        instead = "the model stands in 'name'" if spelt == "model" else "Interlock sets it itself"
        return f"the option {name!r} cannot be set here: {instead}"
    if value is None:
        return f"the option {name!r} has no value: give it one, true for an option that takes none, or leave it out"
    return ""


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and " " not in url
    except ValueError:
        return False
