"""Values of the settings of what outlives its request, and of batches; see setting_samples."""

from __future__ import annotations

import tempfile

from support.bad_values import BAD_NUMBERS, BAD_PATHS
from support.sample import Sample

# One that only its owner may read and write, for as long as this process lives.
_KEYS = tempfile.NamedTemporaryFile(prefix="gatewayx-id-key-")  # noqa: SIM115
_KEYS.write(b"0123456789abcdef0123456789ABCDEF\n")
_KEYS.flush()
KEY_FILE = _KEYS.name

BAD_TIMES = [*BAD_NUMBERS, "0", "0.009", "604800.1"]
BAD_COUNTS = [*BAD_NUMBERS, "0", "1000001"]

KEPT_SAMPLES = {
    "kept_timeout_s": Sample(
        default=3600.0,
        toml=("5", 5.0),
        variable=("0.01", 0.01),
        flag=("604800", 604800.0),
        arguments=["--kept-timeout", "7200"],
        shown="7200",
        bad=BAD_TIMES,
    ),
    "kept_ttl_s": Sample(
        default=300.0,
        toml=("5", 5.0),
        variable=("0.01", 0.01),
        flag=("604800", 604800.0),
        arguments=["--kept-ttl", "60.5"],
        shown="60.5",
        bad=BAD_TIMES,
    ),
    "max_kept_jobs": Sample(
        default=10_000,
        toml=("3", 3),
        variable=("1", 1),
        flag=("1000000", 1_000_000),
        arguments=["--max-kept-jobs", "9"],
        shown="9",
        bad=BAD_COUNTS,
    ),
    "max_keys": Sample(
        default=100_000,
        toml=("3", 3),
        variable=("0", 0),
        flag=("10000000", 10_000_000),
        arguments=["--max-keys", "9"],
        shown="9",
        bad=[*BAD_NUMBERS, "10000001"],
    ),
    "max_batch": Sample(
        default=1_000,
        toml=("3", 3),
        variable=("1", 1),
        flag=("1000000", 1_000_000),
        arguments=["--max-batch", "9"],
        shown="9",
        bad=BAD_COUNTS,
    ),
    "max_status_polls": Sample(
        default=500,
        toml=("3", 3),
        variable=("1", 1),
        flag=("1000000", 1_000_000),
        arguments=["--max-status-polls", "9"],
        shown="9",
        bad=BAD_COUNTS,
    ),
    "id_key": Sample(
        default=None,
        toml=('"/etc/gatewayx/id-key"', "/etc/gatewayx/id-key"),
        variable=("", None),
        flag=("a b/ä", "a b/ä"),
        arguments=["--id-key", KEY_FILE],
        shown=KEY_FILE,
        bad=BAD_PATHS,
    ),
}
