"""Which form a client gets."""

from __future__ import annotations

import pytest

from gatewayx.admin.exposition import FORMS, OPEN_METRICS, TEXT
from gatewayx.admin.negotiation import chosen_form, takes_gzip

# What Prometheus 2 and 3 send.
PROMETHEUS_2 = (
    b"application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    b"text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3 = (
    b"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    b"application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    b"text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROTOBUF = b"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, TEXT),
        (b"", TEXT),
        (b"*/*", TEXT),
        (b"text/plain", TEXT),
        (b"text/*", TEXT),
        (b"text/html,*/*;q=0.8", TEXT),
        (PROMETHEUS_2, OPEN_METRICS),
        (PROMETHEUS_3, OPEN_METRICS),
        (PROTOBUF, TEXT),
        (PROTOBUF + b",text/plain;version=0.0.4;q=0.3,*/*;q=0.1", TEXT),
        (b"application/openmetrics-text", OPEN_METRICS),
        (b"application/openmetrics-text; version=1.0.0; charset=utf-8", OPEN_METRICS),
        (b'APPLICATION/OpenMetrics-Text ; version="1.0.0"', OPEN_METRICS),
        (b"application/openmetrics-text;version=0.0.1", TEXT),
        (b"application/openmetrics-text;version=2.0.0,text/plain;q=0.1", TEXT),
        (b"application/openmetrics-text;q=0,*/*", TEXT),
        (b"application/openmetrics-text;q=0.3,text/plain;q=0.4", TEXT),
        (b"application/openmetrics-text;q=0.4,text/plain;q=0.3", OPEN_METRICS),
        (b"text/plain;q=0.5,application/*;q=0.6", OPEN_METRICS),
        (b"text/plain;q=0,*/*", OPEN_METRICS),
        (b"application/openmetrics-text;q=nonsense", TEXT),
        (b"application/openmetrics-text;q=1.5,text/plain;q=0.1", TEXT),
        (b";;;,,,=;q", TEXT),
        (b"\xff\xfe", TEXT),
        (b",".join([b"text/html"] * 1000 + [b"application/openmetrics-text"]), TEXT),
    ],
)
def test_the_form_is_the_one_that_is_wanted_most(accept, form):
    assert chosen_form(accept, FORMS) == form


@pytest.mark.parametrize(
    ("accept_encoding", "takes"),
    [
        (None, False),
        (b"", False),
        (b"identity", False),
        (b"gzip", True),
        (b"GZip", True),
        (b"x-gzip", True),
        (b"deflate, gzip;q=0.5", True),
        (b"gzip;q=0", False),
        (b"gzip;q=0.000, *", False),
        (b"*", True),
        (b"*;q=0", False),
        (b"br", False),
    ],
)
def test_it_is_compressed_for_whoever_takes_that(accept_encoding, takes):
    assert takes_gzip(accept_encoding) is takes
