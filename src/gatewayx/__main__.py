"""`python -m gatewayx` is the `gatewayx` command."""

from gatewayx.cli import main

if __name__ == "__main__":
    main(prog_name="gatewayx")
