"""A buffer full of tiny requests is paid for once, however many answers leave one by one."""

from __future__ import annotations

import itertools

from support.still import still_gateway


def test_it_is_read_once_and_copied_as_it_halves(monkeypatch):
    request = b"GET /f HTTP/1.1\r\nHost:a\r\n\r\n"
    count = 60_000 // len(request)
    with still_gateway(max_pipelined=64, job_timeout_s=1000) as gateway:
        client = gateway.client()
        switches: list[str] = []
        for name in ("pause", "resume"):
            monkeypatch.setattr(client, name, lambda name=name: switches.append(name) or 0)
        client.send(request * count)
        gateway.loop.settle()
        held = []
        for number in range(count):
            gateway.complete(b"%d" % number)
            held.append(gateway.count("budget.held_bytes"))
        assert [int(answer.body) for answer in client.responses()] == list(range(count))
        assert switches == ["pause", "resume"]
        # The rest of the buffer is what is held most; each copy of it makes that less.
        assert sum(before - after > 2000 for before, after in itertools.pairwise(held)) < 20
