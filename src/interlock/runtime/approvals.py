"""What a person has to say before an attempt's calls are made: asking, and what an answer is good for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from interlock.agents.authority import Judged
from interlock.agents.toolbox import Suspended
from interlock.protocol.base import Json
from interlock.protocol.control import Control
from interlock.protocol.ledger import digest_of
from interlock.protocol.messages import Approval, QuestionAnswered, QuestionAsked
from interlock.protocol.permissions import Call

__all__ = ["Answered", "Approvals", "Pending"]


@dataclass(frozen=True, slots=True)
class Pending:
    """What a person has to be asked before a call can be made; what a ``question.asked`` is made of."""

    about: Literal["approval", "doubt"]
    text: str
    approval: Approval
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The question that the attempt waited with, and what the person said."""

    asked: QuestionAsked
    answer: QuestionAnswered


class Approvals:
    """The answers that one attempt has. A yes is for one call that is exactly the one that was shown."""

    def __init__(
        self, asker: str, hide: Callable[[Json], Json], answered: Answered | None, declined: Mapping[str, str]
    ) -> None:
        """Begin with the answer that the attempt goes on after, if there is one.

        :param asker: the role that asks
        :param declined: what was refused before, as ``declined`` gave it
        """
        self._asker = asker
        self._hide = hide
        self._answered = answered
        self._declined = dict(declined)
        asked = answered.asked.approval if answered and answered.asked.about == "approval" else None
        if answered is not None and asked is not None and answered.answer.answer != "yes":
            self._declined[_name(asked.tool, asked.digest)] = _refusal(answered.answer)
            self._answered = None

    @property
    def declined(self) -> dict[str, str]:
        """The calls that a person refused, with the reason: they are refused for the rest of the attempt."""
        return dict(self._declined)

    def check(self, judged: Judged, call: Call, control: Control) -> str | None:
        """Return why a person does not want the call; None where it may be made.

        :raises Suspended: a person has to be asked, or asked again since the policy changed
        """
        refusal = self._declined.get(_name(call.spec.name, digest_of(call.arguments)))
        if refusal is not None or judged.outcome != "ask":
            return refusal
        answered = self._for(call, "approval")
        if answered is not None and answered.policy == control.policy_epoch:
            return None
        why = f"May {self._asker} call {call.spec.name} ({call.spec.effect})? It is asked because {judged.reason}."
        raise Suspended(Pending("approval", self._text(why), self._approval(judged, call, control)))

    def doubt(
        self, judged: Judged, call: Call, control: Control, key: str, reason: str
    ) -> Literal["done", "not_done", "unknown"]:
        """Return what a person says of an effect that may have been made before.

        :param reason: why it is in doubt
        :raises Suspended: the person has to be asked
        """
        if self._for(call, "doubt") is None or self._answered is None:
            text = f"Did {call.spec.name} ({call.spec.effect}) take place? It is not known: {reason}."
            raise Suspended(Pending("doubt", self._text(text), self._approval(judged, call, control), key))
        match self._answered.answer.answer:
            case ("done" | "not_done") as known:
                return known
            case _:
                return "unknown"

    def spend(self) -> None:
        """Let the answer count no more: what it was about is done."""
        self._answered = None

    def _for(self, call: Call, about: Literal["approval", "doubt"]) -> Approval | None:
        """Return what the person saw, where he was asked about exactly this call."""
        answered = self._answered
        approval = answered.asked.approval if answered and answered.asked.about == about else None
        if approval is None or (approval.tool, approval.digest) != (call.spec.name, digest_of(call.arguments)):
            return None
        return approval

    def _approval(self, judged: Judged, call: Call, control: Control) -> Approval:
        return Approval(
            tool=call.spec.name,
            arguments=self._hide(dict(call.arguments)),
            digest=digest_of(call.arguments),
            effect=call.spec.effect,
            rule=judged.rule,
            policy=control.policy_epoch,
        )

    def _text(self, text: str) -> str:
        return str(self._hide(text))


def _name(tool: str, digest: str) -> str:
    return f"{tool} {digest}"


def _refusal(answer: QuestionAnswered) -> str:
    if answer.by_default:
        return "a person was asked and did not answer in time, which is a no"
    return f"a person said no: {answer.note}" if answer.note else "a person said no"
