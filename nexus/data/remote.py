"""Images from the network, by their addresses."""

import http.client
import urllib.request

from nexus.core.download import TIMEOUT_SECONDS, offline
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
    request = urllib.request.Request(url, headers={"User-Agent": "nexus-vision"})  # noqa: S310  (is_address)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as reply:  # noqa: S310
            data = reply.read(MAX_FILE_BYTES + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ImageError(f"{url} could not be fetched ({error}). Check the address. {advice}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"{url} is larger than {MAX_FILE_BYTES:,} bytes. {advice}")
    return data
