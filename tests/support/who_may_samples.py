"""Values of the settings that say who may ask, and how often; see setting_samples."""

from __future__ import annotations

import tempfile

from gatewayx.config.rate_kinds import FunctionRate, RateBound
from support.bad_values import BAD_HOSTS, BAD_NAMES, BAD_ORIGINS, BAD_PATHS, BAD_RATES, BAD_WORDS
from support.sample import Sample

# One that is there, and that only its owner may write to, for as long as this process lives.
_EMPTY = tempfile.NamedTemporaryFile(prefix="gatewayx-tokens-")  # noqa: SIM115
EMPTY_FILE = _EMPTY.name

WHO_MAY_SAMPLES = {
    "origin": Sample(
        default=(),
        toml=(
            '["HTTPS://App.example:443", "http://[::FFFF:127.0.0.1]:80"]',
            ("https://app.example", "http://[::ffff:7f00:1]"),
        ),
        variable=("http://a:443, capacitor://localhost", ("http://a:443", "capacitor://localhost")),
        flag=(("*",), ("*",)),
        arguments=["--origin", "https://app.example:8443", "--origin", "http://127.0.0.1:3000"],
        shown="https://app.example:8443,http://127.0.0.1:3000",
        bad=BAD_ORIGINS,
    ),
    "host": Sample(
        default=(),
        toml=('["API.example", "[0::1]"]', ("api.example", "[::1]")),
        variable=("127.0.0.1, [::ffff:1.2.3.4]", ("127.0.0.1", "[::ffff:102:304]")),
        flag=(("a", "b"), ("a", "b")),
        arguments=["--host", "a", "--host", "[2001:DB8::1]"],
        shown="a,[2001:db8::1]",
        bad=[
            *(host for host in BAD_HOSTS if host != "[::1]"),
            "[::1",
            "[::1]:80",
            "::1",
            "[]",
            "[::1%1]",
            "[127.0.0.1]",
        ],
    ),
    "rate": Sample(
        default=None,
        toml=('"10/s"', RateBound(10.0, 10)),
        variable=("0.5/s", RateBound(0.5, 1)),
        flag=("1000000/s:1000000", RateBound(1_000_000.0, 1_000_000)),
        arguments=["--rate", "2.5/s:40"],
        shown="2.5/s:40",
        bad=BAD_RATES,
    ),
    "function_rate": Sample(
        default=(),
        toml=(
            '["resize=10/s", "a=b=0.001/s:2", "*=3/s:7"]',
            (
                FunctionRate("resize", RateBound(10.0, 10)),
                FunctionRate("a=b", RateBound(0.001, 2)),
                FunctionRate("*", RateBound(3.0, 7)),
            ),
        ),
        variable=(
            "one=1/s,two*=2/s:1",
            (FunctionRate("one", RateBound(1.0, 1)), FunctionRate("two*", RateBound(2.0, 1))),
        ),
        flag=(("a,b=5/s", "c=6/s"), (FunctionRate("a,b", RateBound(5.0, 5)), FunctionRate("c", RateBound(6.0, 6)))),
        arguments=["--function-rate", "resize=5/s:9", "--function-rate", "*=7/s"],
        shown="resize=5/s:9,*=7/s:7",
        bad=[*BAD_NAMES, "a", "=1/s", *(f"a={rate}" for rate in BAD_RATES), "a=1/s,a=2/s", "a=1/s,"],
    ),
    "connection_rate": Sample(
        default=None,
        toml=('"10/s"', RateBound(10.0, 10)),
        variable=("1.25/s", RateBound(1.25, 2)),
        flag=("4/s:1", RateBound(4.0, 1)),
        arguments=["--connection-rate", "20/s"],
        shown="20/s:20",
        bad=BAD_RATES,
    ),
    "tokens": Sample(
        default=None,
        toml=('"/etc/gatewayx/tokens.toml"', "/etc/gatewayx/tokens.toml"),
        variable=("a b/ä", "a b/ä"),
        flag=("t.toml", "t.toml"),
        arguments=["--tokens", EMPTY_FILE],
        shown=EMPTY_FILE,
        bad=["", *BAD_PATHS],
    ),
    "hide_functions": Sample(
        default=False,
        toml=("true", True),
        variable=("true", True),
        flag=(True, True),
        arguments=["--hide-functions"],
        shown="true",
        bad=BAD_WORDS,
    ),
}
