"""Chance for what many would otherwise do at the same moment, without `random`, which takes 0.2 MiB."""

import os

_BITS = 53


def random_part(most_s: float) -> float:
    """Seconds of 0 up to `most_s`, each as likely as any other."""
    return most_s * (int.from_bytes(os.urandom(8), "big") >> (64 - _BITS)) / (1 << _BITS)
