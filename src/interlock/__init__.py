"""Teams of LLM agents that plan, execute, verify and redo their work over NATS."""

from interlock._version import __version__

__all__ = ["__version__"]
