"""Images from the network, by their addresses."""

from nexus.core.download import fetch, offline
from nexus.core.files import WeightsError
from nexus.data.images import MAX_FILE_BYTES, ImageError


def is_address(source: object) -> bool:
    """Returns whether `source` is the address of something in the network."""
    return isinstance(source, str) and source.startswith(("http://", "https://"))


def fetch_image(url: str) -> bytes:
    """Returns the bytes of the file at `url`; they are not kept anywhere.

    Raises:
        ImageError: The network is forbidden or fails, or the file is larger than an image may be.
    """
    advice = "Download it yourself and name the file."
    if offline():
        raise ImageError(f"{url} was not fetched: NEXUS_OFFLINE or HF_HUB_OFFLINE is set. {advice}")
    try:
        return fetch(url, MAX_FILE_BYTES)
    except WeightsError as error:
        raise ImageError(f"{error} {advice}") from None
