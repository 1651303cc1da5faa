"""Words for a terminal."""


def one_line(text: str) -> str:
    """Returns a message as one line for a terminal: its lines joined, what would move the cursor spelled out."""
    joined = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in joined)
