"""A model that is asked on behalf of one attempt, as long as the attempt is still this process's."""

from dataclasses import dataclass

from interlock.backends.chat import ChatModel, ChatReply, ChatRequest
from interlock.runtime.chain import Chain
from interlock.runtime.deliveries import Delivery

__all__ = ["HeldModel"]


@dataclass(frozen=True, slots=True)
class HeldModel:
    """Passes requests on; where others may have the same assignment, only while the attempt is not over.

    An attempt would otherwise go on paying for an answer that another process has given meanwhile.
    """

    model: ChatModel
    chain: Chain
    delivery: Delivery

    @property
    def provider(self) -> str:
        """The kind of engine behind it."""
        return self.model.provider

    @property
    def name(self) -> str | None:
        """The model's name as its server knows it."""
        return self.model.name

    @property
    def url(self) -> str:
        """The base URL of the API."""
        return self.model.url

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Ask the model and return its answer.

        :raises interlock.agents.toolbox.AttemptLost: somebody else has moved the task on
        :raises interlock.backends.errors.ModelError: there is no answer
        """
        if self.delivery.is_again:
            await self.chain.hold()
        return await self.model.chat(request)

    async def aclose(self) -> None:
        """Close nothing: the model is shared."""
