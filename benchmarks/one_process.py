"""A worker process without a master, with the arguments of `gatewayx serve`: only in such a one callgrind can count.

Its end of the connection with the master stays open, so it serves until it is killed.
"""

import os
import socket
import sys

import click

from gatewayx.cli import settings_options
from gatewayx.config.loading import load
from gatewayx.net.names import resolve_at_start
from gatewayx.server import logs, worker
from gatewayx.server.certificates import TlsContexts
from gatewayx.server.listeners import BoundSockets
from gatewayx.server.open_files import make_room_for_connections
from gatewayx.server.process import places_for
from gatewayx.server.reloading import read_tls_files
from gatewayx.server.token_file import read_tokens


@click.command()
@settings_options
def main(config_path: str | None, **flags: object) -> None:
    """Serve as the only worker process would."""
    settings = load(config_path, os.environ, flags).settings
    log = logs.configure()
    make_room_for_connections(settings, 1)
    sockets = BoundSockets(1)
    for address in settings.listen:
        sockets.bind(address, resolve_at_start(address.host, print)[0], settings)
    _master, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own.setblocking(False)
    tokens = read_tokens(settings) or ()
    tls = TlsContexts(settings, read_tls_files(settings))
    sys.exit(worker.run(settings, sockets, places_for(settings, 1), 0, own, 2, log, tls, None, tokens))


if __name__ == "__main__":
    main()
