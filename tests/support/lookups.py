"""Lookups of names that do what a test tells them, in place of the system's."""

from __future__ import annotations

import threading

from gatewayx.net.names import NumericHost


def numeric(*addresses: str) -> list[NumericHost]:
    """What a lookup has found."""
    return [NumericHost.parse(address) for address in addresses]


class HangingLookups:
    """Every name ending in `.test` hangs until go_on(), except good.test, which is 127.0.0.1."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._go_on = threading.Event()

    def look_up(self, host: str) -> list[NumericHost]:
        """In place of names.look_up(); a name that may go on is not found."""
        if host == "good.test":
            return numeric("127.0.0.1")
        self.asked.append(host)
        self._go_on.wait()
        raise OSError("Name or service not known")

    def go_on(self) -> None:
        """Let all that hang end."""
        self._go_on.set()
