"""The files in ``deploy/``: containers are not started here, so what can be checked without them is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

DEPLOY = Path(__file__).parents[3] / "deploy"


@pytest.fixture
def services() -> dict[str, Any]:
    """Return the services of the compose file."""
    content = YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text())
    found: dict[str, Any] = content["services"]
    return found


def test_images_are_pinned_and_ports_stay_on_this_machine(services: dict[str, Any]) -> None:
    """No image moves under its users, and nothing is reachable from outside unless somebody says so."""
    assert set(services) == {"jaeger", "nats"}
    for service in services.values():
        assert re.search(r":\d+\.\d+\.\d+(-alpine)?$", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_mounted_files_exist(services: dict[str, Any]) -> None:
    """Docker would make an empty folder in the place of a missing file."""
    mounted = [volume.split(":")[0] for volume in services["nats"]["volumes"] if volume.startswith(".")]
    assert mounted
    assert all((DEPLOY / path).is_file() for path in mounted)


def _filled_in(text: str, given: dict[str, str]) -> str:
    """Return ``text`` as Compose would pass it on."""
    return re.sub(r"\$\{(\w+)[^}]*\}", lambda found: given[found[1]], text)


@pytest.mark.parametrize("sync", ["2m", "always"])
def test_the_server_takes_its_configuration(services: dict[str, Any], sync: str) -> None:
    """nats-server itself finds the configuration valid, with the variables that the compose file sets."""
    binary = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert binary is not None
    given = {"INTERLOCK_NATS_PASSWORD": "0123456789", "INTERLOCK_NATS_SYNC": sync}
    environ = os.environ | {name: _filled_in(text, given) for name, text in services["nats"]["environment"].items()}
    command = [binary, "-t", "-c", str(DEPLOY / "nats" / "nats.conf")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=30)
    assert "is valid" in done.stderr, done.stderr
    assert done.returncode == 0
