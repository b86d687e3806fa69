"""The errors that are no room's own, sorted by whose fault they are."""


class SettingError(Exception):
    """A setting that cannot be used: the operator's mistake.

    The message is one line of printable ASCII that names the setting, its value, where it came from and
    what is allowed.
    """


class StartError(Exception):
    """A start that failed although the settings are sound: the machine's state, such as a port already taken.

    The message is one line.
    """


class StateError(Exception):
    """A change from one state to another that is not legal: ours. The message names both."""
