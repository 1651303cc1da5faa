"""Words for a terminal."""


def one_line(text: str) -> str:
    """Returns a message as one line for a terminal: its lines joined, what would move the cursor spelled out."""
    joined = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in joined)


LONGEST_MESSAGE = 1000
"""Characters of a message; what a file says may be quoted in it, and be as long as the file."""
_HEAD = 700


def as_message(text: str) -> str:
    """Returns what an error says: one line, and of a longer one the start (the file, the place) and the end."""
    line = one_line(text)
    if len(line) <= LONGEST_MESSAGE:
        return line
    return f"{line[:_HEAD]} ... {line[_HEAD - LONGEST_MESSAGE + 5 :]}"
