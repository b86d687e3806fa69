"""The states of a client's connection: each change is legal, or refused and without an effect."""

from __future__ import annotations

import pytest

from gatewayx.errors import StateError
from gatewayx.http.clients import ClientState
from support.still import still_gateway

OPENING, READING, ANSWERING = ClientState.OPENING, ClientState.READING, ClientState.ANSWERING
LINGERING, CLOSED = ClientState.LINGERING, ClientState.CLOSED
# As docs/architecture.md draws them.
NEXT = {
    OPENING: {READING, LINGERING, CLOSED},
    READING: {ANSWERING, LINGERING, CLOSED},
    ANSWERING: {LINGERING, CLOSED},
    LINGERING: {CLOSED},
    CLOSED: {CLOSED},
}
# How a connection comes to each state.
WAYS = {
    READING: (),
    ANSWERING: (ANSWERING,),
    LINGERING: (LINGERING,),
    CLOSED: (CLOSED,),
}


@pytest.mark.parametrize("after", NEXT, ids=lambda state: state.name)
@pytest.mark.parametrize("before", WAYS, ids=lambda state: state.name)
def test_a_change_is_legal_or_refused(before, after):
    with still_gateway() as gateway:
        connection = gateway.client().owner
        for state in WAYS[before]:
            connection.change(state)
        assert connection.state == before
        if after in NEXT[before]:
            connection.change(after)
            assert connection.state == after
        else:
            with pytest.raises(StateError):
                connection.change(after)
            assert connection.state == before
