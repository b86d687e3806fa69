"""The names by which the gateway is asked for; the .pxd has the C-level interface."""

from typing import final

@final
class Hosts:
    """Some names of hosts. names: names and addresses, IPv6 in brackets, without ports."""

    def __init__(self, names: tuple[bytes, ...]) -> None: ...
