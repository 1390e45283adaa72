import pickle

import pytest

from interlock.backends import errors
from interlock.backends.capabilities import CAPABILITIES
from interlock.backends.engines import Endpoint, resolve_endpoint
from interlock.backends.errors import (
    LocalEngineNotRunning,
    ModelError,
    ModelKeyInvalid,
    ModelNotConfigured,
    ModelUrlInvalid,
)
from interlock.protocol.team import Engine, ModelSettings

KEY = "sk-very-secret-0123456789"


def test_the_team_file_names_the_endpoint() -> None:
    """Without the variables the team file's URL, name and key variable count."""
    settings = ModelSettings(url="http://host:8000/v1/", name="big", api_key_env="MY_KEY", timeout=7)
    endpoint = resolve_endpoint(settings, {"MY_KEY": f" {KEY}\n", "INTERLOCK_API_KEY": "other"})
    assert endpoint == Endpoint("http://host:8000/v1", "big", KEY, "openai", 7, "MY_KEY")


@pytest.mark.parametrize("settings", [ModelSettings(), ModelSettings(engine="local"), ModelSettings(url="http://a/v1")])
def test_the_environment_wins_over_the_team_file(settings: ModelSettings) -> None:
    """With INTERLOCK_MODEL_URL every agent goes there, whatever its engine is in the team file."""
    environ = {"INTERLOCK_MODEL_URL": "https://b/v1", "INTERLOCK_MODEL": "m", "INTERLOCK_API_KEY": KEY}
    assert resolve_endpoint(settings, environ) == Endpoint("https://b/v1", "m", KEY, "openai", 120)


def test_the_team_files_key_and_model_stay_with_its_url() -> None:
    """A key that a team file names is not sent to a URL from the environment, nor is its model asked for there."""
    settings = ModelSettings(url="https://vendor/v1", name="vendors-model", api_key_env="VENDOR_KEY")
    endpoint = resolve_endpoint(settings, {"INTERLOCK_MODEL_URL": "http://mine/v1", "VENDOR_KEY": KEY})
    assert (endpoint.url, endpoint.name, endpoint.api_key) == ("http://mine/v1", None, None)


def test_the_model_alone_can_be_changed() -> None:
    """INTERLOCK_MODEL without a URL names another model at the team file's server."""
    settings = ModelSettings(url="http://host/v1", name="big")
    assert resolve_endpoint(settings, {"INTERLOCK_MODEL": "small"}).name == "small"


def test_the_local_engine_is_where_its_starter_says() -> None:
    """The engine local is found by the variables that its starter sets for its children."""
    environ = {"INTERLOCK_LOCAL_URL": "http://127.0.0.1:9/v1", "INTERLOCK_LOCAL_KEY": KEY, "INTERLOCK_MODEL": "m"}
    endpoint = resolve_endpoint(ModelSettings(engine="local", timeout=3), environ)
    assert (endpoint.url, endpoint.api_key, endpoint.engine, endpoint.timeout) == (
        "http://127.0.0.1:9/v1",
        KEY,
        "local",
        3,
    )


def test_no_url_anywhere_is_a_typed_error() -> None:
    """The message names both places where a URL can stand and the engine that needs none."""
    with pytest.raises(ModelNotConfigured, match=r"model\.url.*INTERLOCK_MODEL_URL.*'local'"):
        resolve_endpoint(ModelSettings(), {})


def test_a_local_engine_that_nobody_started_is_a_typed_error() -> None:
    """The message says what starts it."""
    with pytest.raises(LocalEngineNotRunning, match="local_engine"):
        resolve_endpoint(ModelSettings(engine="local"), {})


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000/v1",
        "ftp://host/v1",
        "http://",
        "http://host:notaport/v1",
        "http://host:99999/v1",
        "http://[::1/v1",
        "http://user:hunter2@host/v1",
        "http://host/v1?api-key=hunter2",
        "http://user:hunter2@host:notaport/v1",
        "not a url",
    ],
)
def test_a_url_that_cannot_be_used_is_a_typed_error(url: str) -> None:
    """The message names where the URL stands and never shows a password."""
    with pytest.raises(ModelUrlInvalid, match=r"^INTERLOCK_MODEL_URL: ") as caught:
        resolve_endpoint(ModelSettings(), {"INTERLOCK_MODEL_URL": url})
    assert "hunter2" not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize("key", ["sk-\x00", "sk-a\nb", "sk-ä"])
def test_a_key_that_cannot_be_sent_is_a_typed_error(key: str) -> None:
    """The message names the variable and does not show the key."""
    with pytest.raises(ModelKeyInvalid, match="INTERLOCK_API_KEY") as caught:
        resolve_endpoint(ModelSettings(url="http://h/v1"), {"INTERLOCK_API_KEY": key})
    assert key not in str(caught.value)


def test_the_key_is_not_in_the_repr() -> None:
    """An endpoint can be logged."""
    assert KEY not in f"{Endpoint('http://h/v1', api_key=KEY)!r}"


def test_every_engine_has_its_row() -> None:
    """The table of capabilities covers the engines of a team file, no more and no less."""
    assert set(CAPABILITIES) == set(Engine.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "error",
    [
        ModelNotConfigured("openai"),
        ModelUrlInvalid("x", "model.url"),
        ModelKeyInvalid("K"),
        errors.ModelUnauthorised("http://h/v1", "m", 401, "K"),
        errors.ModelRefusedRequest("http://h/v1", "m", 404, "no"),
        errors.ModelUnreachable("http://h/v1", None, "refused"),
        errors.ModelTimedOut("http://h/v1", "m", 3),
        errors.ModelRateLimited("http://h/v1", "m", 1.5, "slow"),
        errors.ModelServerFailed("http://h/v1", "m", 500, None, "oops"),
        errors.ModelAnswerMalformed("http://h/v1", "m", "no choices", "<html>"),
        errors.LocalEngineMissing("llama_cpp"),
        errors.LocalWeightsMissing(None),
        LocalEngineNotRunning(),
        errors.LocalEngineFailed("ended", "boom"),
        errors.VllmMissing(None),
        errors.VllmNotRunning("m"),
        errors.VllmFailed("m", "ended", "boom"),
    ],
)
def test_errors_survive_a_process_boundary(error: ModelError) -> None:
    """An error that is pickled says the same afterwards, and every error is a ModelError."""
    error.attempts = 2
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own bytes
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert "tried 2 times" in str(copy)
