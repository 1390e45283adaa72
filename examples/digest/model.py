"""A stand-in for a model, to see the digest team at work without one. It quotes, and once it makes something up."""

import re
from typing import Any

from interlock.testing import Call


def answer(call: Call) -> dict[str, Any]:
    """Answer with the first words of the document; a document about layouts gets a made-up summary first."""
    document = call.conversation.partition("Document:")[2].partition("In one sentence")[0]
    if "layout" in document and "was not accepted" not in call.conversation:
        return {"summary": "A cookery book with 250 recipes for the busy weekday."}
    prose = next((text for text in document.split("\n\n") if re.match(r"\s*[A-Z]", text)), document)
    return {"summary": " ".join(prose.split()[:20]).rstrip(".,:;") + "."}
