"""What ``interlock policy`` does: lay down the operator's policy, or say which one stands."""

from collections.abc import Iterator

from interlock.protocol.base import Strict
from interlock.protocol.control import Policy
from interlock.protocol.permissions import rule_text
from interlock.protocol.principles import Principle
from interlock.runtime.place import Place, open_log

__all__ = ["StandingPolicy", "lay_down", "standing_policy"]


class StandingPolicy(Strict):
    """The policy that binds every job, and since when."""

    epoch: int
    """Its number, which only rises; 0: nobody laid down any."""
    policy: Policy

    def in_words(self) -> str:
        """Return it as lines for a person."""
        if not self.epoch:
            return "no policy stands: teams are bound by their own rules and principles alone"
        since = self.policy.at.isoformat(timespec="seconds")
        return "\n".join([f"policy {self.epoch}, laid down {since}", *_lines(self.policy)])


async def lay_down(place: Place, policy: Policy) -> StandingPolicy:
    """Put ``policy`` in the place of the one that stands; it binds from now on, also in jobs that run.

    :raises BrokerError: the embedded broker cannot be started
    :raises BusError: the broker cannot be reached, or does not let these credentials
    """
    async with open_log(place, "policy") as bus:
        return StandingPolicy(epoch=await bus.orders.write_policy(policy), policy=policy)


async def standing_policy(place: Place) -> StandingPolicy:
    """Return the policy that stands.

    :raises BrokerError: the embedded broker cannot be started
    :raises BusError: the broker cannot be reached
    :raises interlock.protocol.errors.ProtocolError: it cannot be read
    """
    async with open_log(place, "policy") as bus:
        control = await bus.orders.control()
    return StandingPolicy(epoch=control.policy_epoch, policy=control.policy)


def _lines(policy: Policy) -> Iterator[str]:
    rules = policy.permissions
    for outcome, several in (("allow", rules.allow), ("ask", rules.ask), ("deny", rules.deny)):
        yield from (f"  {outcome:<10} {rule_text(rule)}" for rule in several)
    yield from (f"  principle  {_named(principle)}" for principle in policy.principles)


def _named(principle: Principle) -> str:
    return principle if isinstance(principle, str) else principle.name or rule_text(principle.never)
