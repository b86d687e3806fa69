"""What the X-Gearman- headers of a request ask for; all of it is C-level."""

PLUGIN_PRIORITIES: dict[bytes, int]
HEADER_NAMES: dict[int, str]
