"""From what a user names to a page that answers."""

import secrets
import socket
from collections.abc import Callable
from typing import Any

from nexus.app.annotate.follow import Follower, follower_of
from nexus.app.annotate.project import Project
from nexus.tasks.clicks import Clickable, Clicker
from nexus.tasks.source import open_model
from nexus.tasks.table import task_of

HOST = "127.0.0.1"
"""The page is for this machine alone; there is no option for another address."""
TOKEN_BYTES = 24


def open_answering(model: str, device: str | None = None) -> tuple[Clicker, Follower | None]:
    """Returns a model that answers clicks, and what follows objects by it, if it can.

    Raises:
        ValueError: There is no such model, or its kind does not answer clicks.
    """
    module = open_model(model, device).eval()
    task = task_of(module).for_model(module)
    if not isinstance(task, Clickable):
        raise ValueError(
            f"{model} is a model for {task.name}, and the page needs one that answers clicks, such as sam_vit_base"
            " (`nexus models 'sam*'`), or a run of one."
        )
    return task.clicker(module), follower_of(module)


def listen(port: int) -> socket.socket:
    """Returns a socket of this machine's own address; port 0 takes any that is free.

    Raises:
        ValueError: The port is taken, or not for this user.
    """
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
    except OSError as error:
        found.close()
        raise ValueError(f"Port {port} cannot be used ({error.strerror}); --port 0 takes one that is free.") from None
    return found


def serve(
    project: Project,
    clicker: Clicker,
    model: str,
    port: int,
    told: Callable[[str], Any],
    follower: Follower | None = None,
) -> None:
    """Answers the page until the process is interrupted.

    Args:
        project: What is annotated; no other process may write it meanwhile.
        clicker: The model.
        model: What the page calls it.
        port: To listen on; 0 takes any that is free.
        told: Called with the address of the page, once it answers.
        follower: Follows objects from image to image; None where the model cannot.

    Raises:
        ImportError: Starlette or uvicorn is not installed.
        ValueError: The port is taken, or another process writes the project.
    """
    try:
        import uvicorn

        from nexus.app.annotate.server import Server
    except ImportError as error:
        raise ImportError(f"annotate needs {error.name}: pip install 'nexus-vision[annotate]'.") from None
    with project.alone(), listen(port) as sock:
        port, token = sock.getsockname()[1], secrets.token_urlsafe(TOKEN_BYTES)
        server = Server(project, clicker, model, token, follower)
        settings: Any = {"log_level": "warning", "lifespan": "on", "server_header": False, "ws": "none"}
        running = uvicorn.Server(uvicorn.Config(server.app(port), timeout_graceful_shutdown=2, **settings))
        sock.listen()
        told(f"http://{HOST}:{port}/?token={token}")
        try:
            running.run(sockets=[sock])
        except KeyboardInterrupt:
            return
