"""The errors of `gatewayx bench`, sorted by whose fault they are."""


class UseError(Exception):
    """What was asked for makes no sense or is not allowed: the caller's mistake. The message is one line."""


class RunError(Exception):
    """The measurement could not be made: nobody listens, a program is missing. The message is one line."""
