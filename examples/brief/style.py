"""Refuse text that is hard to read: the result comes as JSON on standard input, what to change goes to standard output.

Exit status 0 accepts it, any other refuses it; what is printed becomes the writer's feedback.
"""

import argparse
import json
import re
import sys

FILLER = ("actually", "basically", "in order to", "it should be noted", "leverage", "very")


def main() -> int:
    """Check the text on standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--longest", type=int, default=25, help="the most words of a sentence")
    longest = parser.parse_args().longest
    text = json.load(sys.stdin)["text"]
    problems = [
        f"this sentence has {len(sentence.split())} words, at most {longest} are allowed: {sentence}"
        for sentence in re.split(r"(?<=[.!?])\s+", text)
        if len(sentence.split()) > longest
    ]
    problems += [f"leave out the filler {word!r}" for word in FILLER if re.search(rf"\b{word}\b", text, re.IGNORECASE)]
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
