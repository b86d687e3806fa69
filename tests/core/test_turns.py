"""The end of a turn of the loop: job servers write first, then clients, each once."""

from __future__ import annotations

import pytest

from support.http import post
from support.still import still_gateway

REFUSED = b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n"


def record(writes: list[str], name: str, transport) -> None:
    """Let the name be noted for each write of the transport."""
    took = transport.took

    def noted(data: bytes) -> None:
        writes.append(name)
        took(data)

    transport.took = noted


@pytest.mark.parametrize("requests", [(REFUSED, post(b"/f")), (post(b"/f"), REFUSED)], ids=["client", "job-server"])
def test_job_servers_write_before_clients_whoever_was_first_to_have_something(requests):
    writes: list[str] = []
    with still_gateway() as gateway:
        clients = [gateway.client() for _ in requests]
        for client in clients:
            record(writes, "client", client)
        gateway.loop.settle()
        [connection] = gateway.server.open()
        record(writes, "job server", connection)
        for client, request in zip(clients, requests, strict=True):
            client.send(request)
        assert writes == []
        gateway.loop.settle()
        assert writes == ["job server", "client"]
        gateway.complete(b"done")
        assert writes == ["job server", "client", "client"]


def test_a_client_is_written_to_in_the_turn_in_which_its_job_server_answers():
    with still_gateway() as gateway:
        client = gateway.client()
        client.send(post(b"/f", b"1"), post(b"/f", b"2"))
        gateway.complete(b"first")
        gateway.complete(b"second")
        assert [response.body for response in client.responses()] == [b"first", b"second"]
