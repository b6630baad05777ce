"""Running the server until it is told to stop."""

from __future__ import annotations

import signal
import socket

import uvicorn
from starlette.applications import Starlette

from sentemb.errors import SentembError


def serve(application: Starlette, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until Ctrl-C or SIGTERM; then take nothing new, finish what was taken on, and return.

    Raises: SentembError where the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        where = f"{host}:{port} cannot be used ({error.strerror})"
        raise SentembError(f"{where}; choose another with --host and --port") from None
    server = _Server(uvicorn.Config(application, log_level="warning", access_log=False, timeout_keep_alive=30))
    with listening:
        server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """Ends quietly: being stopped is how a server ends."""

    def handle_exit(self, sig: int, frame: object) -> None:
        """Stop; a second Ctrl-C does not wait for what is under way."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
