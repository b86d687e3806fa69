"""The `gatewayx` command, also as `python -m gatewayx`: what must be done before anything slow is imported.

Importing the command line takes tenths of a second, in which a signal may come and descriptors are opened.
"""

from __future__ import annotations

import os
import sys

STANDARD_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def main() -> None:
    """Run the command line; ends with SystemExit."""
    open_standard_descriptors()
    if sys.argv[1:2] == ["serve"]:
        from gatewayx.server import signals

        signals.prepare()
    from gatewayx.cli import main as command

    command(prog_name="gatewayx")


def open_standard_descriptors() -> None:
    """Open /dev/null in the place of each standard descriptor that is closed.

    A file or socket that got such a number would be taken for the stream: it would be written to, and libuv aborts the
    process when it closes it. Raises SystemExit if /dev/null cannot be opened.
    """
    for descriptor, (name, mode) in enumerate(STANDARD_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            _open_null(descriptor)
            # Python has set the stream to None, which `print` takes for standard output.
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115


def _open_null(descriptor: int) -> None:
    try:
        # The lowest number that is free: those below are open.
        os.open(os.devnull, os.O_RDWR)
    except OSError as error:
        sys.exit(f"gatewayx: a standard descriptor is closed and {os.devnull} cannot be opened: {error.strerror}")
    # Whoever is started by this process gets it as well.
    os.set_inheritable(descriptor, True)


if __name__ == "__main__":
    main()
