"""Items kept beside the log: what is too much for a message stands in the object store, in chunks."""

from typing import Annotated, Literal

from pydantic import Field

from interlock.protocol.base import Strict

__all__ = ["Chunk", "Priority", "StoredItems"]

Priority = Literal["low", "normal", "high"]
"""How large a share of the agents a job gets while others want them too."""


class Chunk(Strict):
    """Some items in a row, as JSON lines, one body of the object store."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the body, in hexadecimal."""
    size: int = Field(ge=0)
    """Bytes of the body."""
    items: int = Field(ge=1)
    """How many lines it has."""


class StoredItems(Strict):
    """A list of items in the object store: that of all chunks, in order."""

    chunks: tuple[Chunk, ...] = ()

    @property
    def count(self) -> int:
        """How many items there are."""
        return sum(chunk.items for chunk in self.chunks)
