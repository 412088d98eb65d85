"""The viewer as a process: a port of this machine, an address on standard output, a quiet end."""

import errno
import socket
import sys
from pathlib import Path

import uvicorn

from rloop.errors import ConfigError
from rloop.view.app import build_app

HOST = "127.0.0.1"
"""Nothing else is ever bound: the pages are for whoever sits at this machine."""


def serve(folder: Path, port: int) -> None:
    """Show the runs of a folder until interrupted; port 0 takes a free one.

    Prints the address. ConfigError for a port in use, StoreError where there is no folder.
    """
    app = build_app(folder)
    with open_port(port) as listening:
        sys.stdout.write(f"http://{HOST}:{listening.getsockname()[1]}/\n")
        sys.stdout.flush()
        if not app.state.folder.runs():
            sys.stderr.write(f"No runs in {folder} yet; new runs will appear here.\n")
        sys.stderr.write(f"Serving {folder}; press Ctrl-C to stop.\n")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            # uvicorn has ended cleanly and passes the signal on; for a viewer it is the usual end.
            return


def open_port(port: int) -> socket.socket:
    """Return a socket that listens at a port of this machine; ConfigError where that cannot be."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        # Whoever opens the address at once waits a moment instead of being refused.
        listening.listen()
    except OSError as error:
        listening.close()
        said = "is in use" if error.errno == errno.EADDRINUSE else f"({error.strerror}) is refused"
        raise ConfigError(
            f"Port {port} {said}. Choose another with --port, or --port 0 for a free one."
        ) from error
    return listening
