"""How a vLLM server is called, what it prints, and what it tells of itself."""

import sys
from pathlib import Path

import pytest

from interlock.backends.engines import resolve_endpoint, served_as
from interlock.backends.errors import ModelUnreachable, VllmNotRunning
from interlock.backends.retry import RetrySettings, seconds_before_retry
from interlock.backends.vllm import VllmSettings
from interlock.backends.vllm_command import (
    command_line,
    find_vllm,
    last_line,
    plain,
    sees_gpu,
    server_environment,
    tracing_options,
    with_options,
)
from interlock.backends.vllm_metrics import VllmMetrics, parse_metrics
from interlock.protocol.base import Json
from interlock.protocol.team import ModelSettings


def test_options_are_passed_through() -> None:
    """Numbers, texts, flags, lists and objects become what vLLM's own configuration files would."""
    options: dict[str, Json] = {
        "max-model-len": 4096,
        "enforce_eager": True,
        "enable-prefix-caching": False,
        "dtype": "float32",
    }
    line = command_line({**options, "allowed-origins": ["a", 1], "structured-outputs-config": {"backend": "xgrammar"}})
    assert line == [
        *("--max-model-len", "4096"),
        "--enforce-eager",
        "--no-enable-prefix-caching",
        *("--dtype", "float32"),
        *("--allowed-origins", "a", "1"),
        *("--structured-outputs-config", '{"backend": "xgrammar"}'),
    ]


def test_a_teams_options_take_the_place_of_ours() -> None:
    """Whichever way they are spelt."""
    assert with_options({"uvicorn-log-level": "warning"}, {"uvicorn_log_level": "info"}) == {
        "uvicorn-log-level": "info"
    }


def test_the_command_or_its_python_can_be_named(tmp_path: Path) -> None:
    """INTERLOCK_VLLM names either; a Python runs the module."""
    assert find_vllm({"INTERLOCK_VLLM": sys.executable})[1:] == ["-m", "vllm.entrypoints.openai.api_server", "--model"]
    command = tmp_path / "vllm"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    assert find_vllm({"PATH": str(tmp_path)}) == [str(command), "serve"]
    assert find_vllm({"INTERLOCK_VLLM": str(command), "PATH": ""}) == [str(command), "serve"]


def test_the_cpu_is_asked_for_only_where_no_gpu_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """GPUs that are hidden are not seen; what the person set counts; the key is nowhere but in its variable."""
    monkeypatch.setattr("interlock.backends.vllm_command._GPUS", (str(tmp_path / "card*"),))
    assert server_environment({}, "k", tracing=False)["VLLM_TARGET_DEVICE"] == "cpu"
    assert server_environment({"VLLM_TARGET_DEVICE": "tpu"}, "k", tracing=False)["VLLM_TARGET_DEVICE"] == "tpu"
    (tmp_path / "card0").touch()
    assert sees_gpu({})
    assert not sees_gpu({"CUDA_VISIBLE_DEVICES": ""})
    found = server_environment({"A": "b"}, "k", tracing=False)
    assert "VLLM_TARGET_DEVICE" not in found
    assert (found["A"], found["VLLM_API_KEY"]) == ("b", "k")


def test_spans_are_asked_for_where_ours_go() -> None:
    """The standard variables decide; without them there is no option."""
    assert tracing_options({}) == {}
    assert tracing_options({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}) == {
        "otlp-traces-endpoint": "http://c:4318/v1/traces"
    }
    assert tracing_options({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x"}) == {
        "otlp-traces-endpoint": "http://c/x"
    }
    assert tracing_options({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "True"}) == {}


def test_what_a_server_prints_is_read_as_a_person_would() -> None:
    """Colours, overwritten progress, times and origins are left out; the words stay."""
    bar = "Loading: 10%\rLoading: 100%\n"
    assert plain(f"\x1b[0;36m(Engine pid=1)\x1b[0m {bar}") == "Loading: 100%\n"
    assert last_line("(APIServer pid=1) INFO 11-22 10:10:10 [core.py:58] Profiling\n\n") == "Profiling"
    assert last_line("ValueError: no") == "ValueError: no"
    assert last_line("") == ""


METRICS = """
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a}b \\"c"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:prefix_cache_queries_total{engine="0"} 1.2e+03
vllm:prefix_cache_queries_created{engine="0"} 1.7e+09
vllm:prefix_cache_hits_total{engine="0"} 800.0
vllm:external_prefix_cache_hits_total{engine="0"} 5.0
vllm:e2e_request_latency_seconds_bucket{le="+Inf"} NaN
"""


def test_metrics_are_added_up() -> None:
    """All engines of a server count together; names that only begin alike do not; other servers tell nothing."""
    assert parse_metrics(METRICS) == VllmMetrics(queries=1200, hits=800, running=4, waiting=2)
    assert parse_metrics("vllm:num_requests_running 1\nvllm:prefix_cache_hits 7\n") == VllmMetrics(hits=7, running=1)
    assert parse_metrics("<html>") is None
    assert VllmMetrics(1, 2, 3, 4) + VllmMetrics(10, 20, 30, 40) == VllmMetrics(11, 22, 33, 44)


def test_servers_are_told_apart_by_what_they_serve() -> None:
    """Name and options make a server; how it is asked does not. Without one the error says what starts it."""
    one = ModelSettings(engine="vllm", name="m", options={"a": 1, "b": 2})
    assert served_as(one) == served_as(ModelSettings(engine="vllm", name="m", options={"b": 2, "a": 1}, max_tokens=5))
    assert served_as(one) != served_as(ModelSettings(engine="vllm", name="m"))
    environ = {"INTERLOCK_VLLM_SERVERS": f'{{"{served_as(one)}": "http://127.0.0.1:1/v1"}}', "INTERLOCK_VLLM_KEY": "k"}
    endpoint = resolve_endpoint(one, environ)
    assert (endpoint.url, endpoint.name, endpoint.api_key, endpoint.engine, endpoint.own) == (
        "http://127.0.0.1:1/v1",
        "m",
        "k",
        "vllm",
        True,
    )
    with pytest.raises(VllmNotRunning, match="interlock run"):
        resolve_endpoint(ModelSettings(engine="vllm", name="m"), environ)


def test_several_urls_are_one_endpoint() -> None:
    """From the team file or, separated by commas, from the environment; one that stands twice is one."""
    several = resolve_endpoint(ModelSettings(engine="vllm", url=("http://a/v1", "http://b/v1/")), {})
    assert (several.url, several.urls, several.engine) == ("http://a/v1", ("http://a/v1", "http://b/v1"), "vllm")
    named = resolve_endpoint(ModelSettings(), {"INTERLOCK_MODEL_URL": "http://a/v1, http://b/v1,http://a/v1/"})
    assert (named.urls, named.engine) == (("http://a/v1", "http://b/v1"), "openai")
    assert resolve_endpoint(ModelSettings(), {"INTERLOCK_MODEL_URL": "http://a/v1"}).urls == ()


def test_a_server_that_is_started_again_is_waited_for() -> None:
    """Its own patience counts where nothing takes a connection, whatever the number of attempts."""
    settings = RetrySettings(attempts=2, patience=60)
    away = ModelUnreachable("http://a/v1", "m", "refused")
    waits = [seconds_before_retry(away, attempt, settings, waited=59) for attempt in range(1, 2000, 100)]
    assert all(wait is not None and wait <= settings.longest_knock for wait in waits)
    assert seconds_before_retry(away, 2, settings, waited=61) is None
    assert VllmSettings.read({"INTERLOCK_VLLM_START_SECONDS": "5"}).start_timeout == 5
    assert VllmSettings.read({"INTERLOCK_VLLM_START_SECONDS": "soon"}) == VllmSettings()
