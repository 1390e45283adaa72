"""The published description of the HTTP API."""

import json
from pathlib import Path

from interlock.runtime.api.app import describe

_ROOT = Path(__file__).parents[3]


def test_the_published_description_is_that_of_the_app() -> None:
    """docs/openapi.json is what the app says of itself; `python -m interlock.runtime.api.describing` writes it."""
    published = json.loads((_ROOT / "docs" / "openapi.json").read_text())
    assert published == json.loads(json.dumps(describe()))


def test_every_path_says_how_it_fails() -> None:
    """Every path that needs a key says that it does, and each of its errors is a problem or an error of OpenAI's."""
    for path, operations in describe()["paths"].items():
        for operation in operations.values():
            answers = operation["responses"]
            if "security" in operation:
                assert {"401", "403", "429", "503"} <= answers.keys(), path
            for status, answer in answers.items():
                if status.startswith("4"):
                    assert answer["content"].keys() <= {"application/problem+json", "application/json"}, (path, status)
