"""The strategies by the names that team files use."""

from interlock.agents.strategies.cot import cot
from interlock.agents.strategies.direct import direct
from interlock.agents.strategies.form import Strategy
from interlock.protocol.team import Agent

__all__ = ["strategy_of"]

_STRATEGIES: dict[str, Strategy] = {"direct": direct, "cot": cot}


def strategy_of(agent: Agent) -> Strategy:
    """Return the strategy that ``agent`` thinks with."""
    return _STRATEGIES[agent.strategy]
