"""What the page may ask of the server, and what the server keeps, at most."""

from nexus.core.documents import Limits

SMALL_BODY = 1 << 20
"""Bytes of a request: of clicks, of the list of classes."""
LARGE_BODY = 32 << 20
"""Bytes of a request that saves an image."""
MARKS = Limits(size=LARGE_BODY, depth=8, count=8_000_000)
"""Of what is marked in one image."""
ASKED = Limits(size=SMALL_BODY, depth=8, count=20_000)
"""Of a question."""
OBJECTS = 2_000
"""Objects in one image."""
POINTS = 200
"""Clicks on one object."""
CLASSES = 1_000
"""Classes of a project."""
FOLLOWED = 200
"""Images through which an object is followed at once."""
NAME = 100
"""Characters of a class's name."""
ENCODED_BYTES = 256 << 20
"""Of encoded images that are kept; the one that is looked at is kept whatever its size."""
AHEAD = 4
"""Images after the one that is looked at which are encoded before they are asked for."""
ANSWERS = 64
"""Answers that are kept for the next click on the same object."""
