"""What the doctor finds, with real brokers and real HTTP."""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import pytest

from interlock.runtime.address import BrokerAddress
from interlock.runtime.doctor import Finding, examine
from interlock.runtime.place import Place
from interlock.testing import Answer, Fail, ScriptedServer


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away whatever the environment of these tests has set up."""
    for name in ("INTERLOCK_MODEL_URL", "INTERLOCK_LOCAL_MODEL", "INTERLOCK_VLLM"):
        monkeypatch.delenv(name, raising=False)
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def found(findings: list[Finding], word: str) -> Finding:
    [finding] = [finding for finding in findings if word in finding.text]
    return finding


async def test_a_machine_with_nothing_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker runs; what is absent says what to do and keeps nobody from working; nothing is left behind."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    findings = await examine(Place(tmp_path / "state"))
    assert found(findings, "broker at nats://127.0.0.1:").fine
    assert found(findings, "on Python").fine
    for word, advice in (
        ("INTERLOCK_MODEL_URL", "is not set"),
        ("engine local", "pip install"),
        ("engine vllm", "INTERLOCK_VLLM"),
        ("tracing is off", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ):
        finding = found(findings, word)
        assert (finding.fine, finding.needed) == (False, False)
        assert advice in finding.text
    assert not (tmp_path / "state").exists(), "the state folder of jobs is left alone"


async def test_a_machine_where_all_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: BrokerAddress
) -> None:
    """A broker that runs elsewhere, a model, local weights and tracing are each found, and no secret is told."""
    spec = importlib.machinery.ModuleSpec("llama_cpp", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    (tmp_path / "small.gguf").touch()
    monkeypatch.setenv("INTERLOCK_LOCAL_MODEL", str(tmp_path / "small.gguf"))
    monkeypatch.setenv("INTERLOCK_VLLM", sys.executable)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console,otlp")
    async with ScriptedServer(Answer("yes")) as server:
        monkeypatch.setenv("INTERLOCK_MODEL_URL", server.url)
        findings = await examine(Place(tmp_path, broker))
    assert all(finding.fine for finding in findings)
    for told in (f"broker at {broker.url}", f"at {server.url} answers", "local with small.gguf", "console, otlp"):
        assert found(findings, told).fine
    assert broker.seed is not None
    assert all(broker.seed not in finding.text for finding in findings)


async def test_a_machine_where_all_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is not there and a model that refuses are missing: a job cannot run."""
    monkeypatch.setenv("INTERLOCK_LOCAL_MODEL", str(tmp_path / "none.gguf"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: importlib.machinery.ModuleSpec("llama_cpp", None))
    async with ScriptedServer(Fail(401)) as server:
        monkeypatch.setenv("INTERLOCK_MODEL_URL", server.url)
        findings = await examine(Place(tmp_path, BrokerAddress("nats://127.0.0.1:1")))
    for word in ("no broker", "the model does not answer"):
        finding = found(findings, word)
        assert (finding.fine, finding.needed) == (False, True)
    assert "none.gguf" in found(findings, "engine local").text
