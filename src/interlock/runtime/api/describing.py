"""Writes the description of the HTTP API: ``python -m interlock.runtime.api.describing > docs/openapi.json``."""

import json
import sys

from interlock.runtime.api.app import describe

__all__ = ["main"]


def main() -> None:
    """Print the OpenAPI document."""
    sys.stdout.write(f"{json.dumps(describe(), indent=1, ensure_ascii=False)}\n")


if __name__ == "__main__":
    main()
