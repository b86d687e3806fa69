"""The memory that the processes of a gateway share: a row for each place, and the bounds that hold for all of them.

Only the worker process of a place writes to its row.

It is one anonymous mapping, made before the first fork. A worker process that takes the place of one that has ended
goes on counting in the same row.
"""

from __future__ import annotations

import enum
import mmap
import os
from collections.abc import Iterable, Sequence

from gatewayx.core.counters import ROW_BYTES, Counters
from gatewayx.core.metrics import Metrics, metrics_bytes
from gatewayx.core.rates import RATES_BYTES, Rates
from gatewayx.core.shared import FUNCTION_SLOTS, Shared, address_slots, shared_bytes
from gatewayx.server.board import Board, board_bytes
from gatewayx.server.server_rows import SERVER_ROW_BYTES, ServerRow

# Words of eight bytes at the beginning of a row, before the counters.
(
    BEAT_NS,
    STATE,
    LISTENS,
    REQUESTS,
    REFUSED_CONNECTIONS,
    PROXY_HEADERS,
    HANDSHAKES,
    HELD_SMALL_BYTES,
    HELD_BODIES_BYTES,
    HELD_RESULTS_BYTES,
    LAG_NS,
    LAST_LAG_NS,
    LAG_SINCE_NS,
    MARK,
    KEPT_QUEUED,
    KEPT_RUNNING,
    KEPT_ENDED,
    EVENT_STREAMS,
    WORDS,
) = range(19)
WORD_BYTES = 8
# No two rows have a cache line in common.
CACHE_LINE_BYTES = 64
# A place whose loop has not turned for so long is still: its neighbours take care of the clients that wait there.
STILL_S = 1.0
# The longest lag is that of the last one to two of these.
LAG_PERIOD_S = 15.0
# As in core/keyed_hash.pxd.
KEY_BYTES = 16
# As ids of jobs have it, and how many of such keys there are (gateway/job_ids.pxd).
MARK_BYTES = 4
MOST_ID_KEYS = 2
# Two slots, one of which is read, as a byte before both tells; in each a number of keys, and they.
KEYS_SLOT_BYTES = KEY_BYTES * (1 + MOST_ID_KEYS)
KEYS_BYTES = 3 * KEYS_SLOT_BYTES


# What is known of a job that is kept.
KEPT_STATES = ("queued", "running", "ended")
# How kept jobs end, of which each one that has begun has one (core/counters).
KEPT_ENDS = ("kept_succeeded", "kept_failed", "kept_cancelled", "kept_lost", "kept_timed_out")


class State(enum.IntEnum):
    """What a place is at."""

    EMPTY = 0
    SERVING = 1
    # It accepts no more.
    DRAINING = 2
    # Its own clients are gone; it serves those of others until theirs are.
    DONE = 3


class Place:
    """One row, which begins at `offset` of the memory."""

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._words = memoryview(memory)[offset : offset + WORDS * WORD_BYTES].cast("Q")
        self._memory = memory
        self._counts_at = offset + WORDS * WORD_BYTES
        # The job servers that its process is connected to.
        self.servers = ServerRow(memory, self._counts_at + ROW_BYTES)

    def counters(self) -> Counters:
        """What is counted here; from where it stands, if somebody had the place before."""
        return Counters(self._memory, self._counts_at)

    def beat(self, now_s: float) -> None:
        """The loop of the worker process has turned; by time.monotonic()."""
        self._words[BEAT_NS] = int(now_s * 1e9)

    @property
    def beat_s(self) -> float:
        """When it last did; 0 if never."""
        return self._words[BEAT_NS] / 1e9

    @property
    def state(self) -> State:
        """What the worker process has told last."""
        return State(self._words[STATE])

    @state.setter
    def state(self, state: State) -> None:
        self._words[STATE] = state

    @property
    def listens(self) -> bool:
        """Whether clients may wait at the sockets of the place, for whoever has it."""
        return self._words[LISTENS] != 0

    @listens.setter
    def listens(self, listens: bool) -> None:
        self._words[LISTENS] = listens

    def tell_held(
        self,
        requests: int,
        refused_connections: int,
        held_bytes: Sequence[int],
        *,
        proxy_headers: int,
        handshakes: int,
    ) -> None:
        """The worker process has so much under way now; held_bytes: of the byte budget, by account."""
        words = self._words
        words[REQUESTS] = requests
        words[REFUSED_CONNECTIONS] = refused_connections
        words[PROXY_HEADERS] = proxy_headers
        words[HANDSHAKES] = handshakes
        for account, size_bytes in enumerate(held_bytes):
            words[HELD_SMALL_BYTES + account] = size_bytes

    @property
    def requests(self) -> int:
        """Requests under way, as was told last."""
        return self._words[REQUESTS]

    @property
    def refused_connections(self) -> int:
        """Connections that do not count, as was told last."""
        return self._words[REFUSED_CONNECTIONS]

    @property
    def proxy_headers(self) -> int:
        """Connections whose PROXY header was not whole, as was told last; they do not count either."""
        return self._words[PROXY_HEADERS]

    @property
    def handshakes(self) -> int:
        """TLS handshakes under way, as was told last."""
        return self._words[HANDSHAKES]

    def held_bytes(self, account: int) -> int:
        """Bytes held in this account of the budget, as was told last."""
        return self._words[HELD_SMALL_BYTES + account]

    def begin(self) -> None:
        """Another worker process has the place, and nothing of what the one before it kept."""
        before = self._words[MARK]
        while self.mark in (0, before):
            self._words[MARK] = int.from_bytes(os.urandom(MARK_BYTES), "big")
        self.tell_kept(0, 0, 0, 0)

    def end(self) -> None:
        """The worker process of the place has ended, and with it what it kept; for the master."""
        counters = self.counters()
        counts = counters.read()
        # It can tell of them no more.
        counters.add("kept_lost", max(0, counts["kept_begun"] - sum(counts[name] for name in KEPT_ENDS)))
        self.state = State.EMPTY
        self._words[MARK] = 0
        self.tell_kept(0, 0, 0, 0)

    @property
    def mark(self) -> int:
        """What tells its process from all others, before it, after it and in other gateways; 0 for none there."""
        return self._words[MARK]

    def tell_kept(self, queued: int, running: int, ended: int, event_streams: int) -> None:
        """The worker process keeps so many jobs now, and so many streams of events are open."""
        words = self._words
        words[KEPT_QUEUED] = queued
        words[KEPT_RUNNING] = running
        words[KEPT_ENDED] = ended
        words[EVENT_STREAMS] = event_streams

    @property
    def kept_jobs(self) -> dict[str, int]:
        """Jobs that are kept here, by KEPT_STATES, as was told last."""
        return {state: self._words[KEPT_QUEUED + number] for number, state in enumerate(KEPT_STATES)}

    @property
    def event_streams(self) -> int:
        """Streams of events that are open, as was told last."""
        return self._words[EVENT_STREAMS]

    def was_late(self, lag_s: float, now_s: float) -> None:
        """The loop of the worker process has turned so much later than was asked of it; now_s: by time.monotonic()."""
        words = self._words
        if now_s - words[LAG_SINCE_NS] / 1e9 >= LAG_PERIOD_S:
            words[LAST_LAG_NS] = words[LAG_NS]
            words[LAG_NS] = 0
            words[LAG_SINCE_NS] = int(now_s * 1e9)
        lag_ns = int(lag_s * 1e9)
        if lag_ns > words[LAG_NS]:
            words[LAG_NS] = lag_ns

    def lag_s(self, now_s: float) -> float:
        """The latest that it was in the last LAG_PERIOD_S, up to twice that; 0 if nothing was told for longer."""
        words = self._words
        age_s = now_s - words[LAG_SINCE_NS] / 1e9
        if age_s >= 2 * LAG_PERIOD_S:
            return 0.0
        lag_ns = words[LAG_NS] if age_s >= LAG_PERIOD_S else max(words[LAG_NS], words[LAST_LAG_NS])
        return lag_ns / 1e9


class Places:
    """All rows, and the bounds.

    count: of worker processes, above 0. connections: of at most how many the addresses may be counted; 0 for none.
    Raises OSError if the memory cannot be had.
    """

    def __init__(self, count: int, connections: int = 0) -> None:
        row_bytes = _behind(WORDS * WORD_BYTES + ROW_BYTES + SERVER_ROW_BYTES)
        rows_bytes = count * row_bytes
        self._address_slots = address_slots(connections)
        bounds_bytes = shared_bytes(count, FUNCTION_SLOTS, self._address_slots)
        board_at = _behind(rows_bytes + bounds_bytes)
        self._metrics_at = _behind(board_at + board_bytes(count))
        self._rates_at = _behind(self._metrics_at + metrics_bytes(count))
        keys_at = _behind(self._rates_at + RATES_BYTES)
        memory = mmap.mmap(-1, keys_at + KEYS_BYTES)
        # Of hashes that all of them must agree on, and that nobody else can foresee.
        self.identity_key = os.urandom(KEY_BYTES)
        # By which ids of jobs are signed where no file has a key.
        self.id_key = os.urandom(KEY_BYTES)
        self._keys = memoryview(memory)[keys_at : keys_at + KEYS_BYTES]
        if not self.id_keys:
            self.id_keys = (self.id_key,)
        self._memory = memory
        self._shared_at = rows_bytes
        # What the master knows, for the admin process.
        self.board = Board(memory, count, board_at)
        self.rows = [Place(memory, number * row_bytes) for number in range(count)]

    def shared(self, place: int = 0) -> Shared:
        """What all have taken of the bounds, for the process at this place."""
        return Shared(self._memory, len(self), place, FUNCTION_SLOTS, self._address_slots, self._shared_at)

    def metrics(self, place: int = 0) -> Metrics:
        """What all have counted by function, for the process at this place."""
        return Metrics(self._memory, len(self), place, self._metrics_at)

    def rates(self, counters: Counters) -> Rates:
        """How often all are asked, for the process that counts here."""
        return Rates(self._memory, counters, self._rates_at)

    @property
    def id_keys(self) -> tuple[bytes, ...]:
        """By the first of which ids of jobs are signed, and by all of which they are read."""
        at = KEYS_SLOT_BYTES * (1 + self._keys[0])
        count = self._keys[at]
        return tuple(bytes(self._keys[at + KEY_BYTES * (1 + number) :][:KEY_BYTES]) for number in range(count))

    @id_keys.setter
    def id_keys(self, keys: tuple[bytes, ...]) -> None:
        # They are written where nobody reads until that is told: who begins meanwhile has them or the others.
        slot = 1 - self._keys[0]
        at = KEYS_SLOT_BYTES * (1 + slot)
        self._keys[at] = len(keys)
        for number, key in enumerate(keys):
            self._keys[at + KEY_BYTES * (1 + number) :][:KEY_BYTES] = key
        self._keys[0] = slot

    def tell_apart(self, functions: Iterable[str]) -> None:
        """Count what is asked of these functions under their names, as far as there is room; `name*` is no name."""
        names = self.metrics().functions
        for function in functions:
            if not function.endswith("*"):
                names.claim(function.encode())

    def tell_tokens_apart(self, names: Iterable[str]) -> None:
        """Count what is asked with the tokens of these names by name, as far as there is room."""
        known = self.metrics().tokens
        for name in names:
            known.claim(name.encode())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Place:
        return self.rows[number]


def _behind(offset: int) -> int:
    """Where the next cache line begins."""
    return -offset // CACHE_LINE_BYTES * -CACHE_LINE_BYTES


class Watch:
    """For how long each place has been still, as somebody sees it who looks again and again.

    Only time counts in which the looker ran itself: when the machine or the container was paused, nobody turned.

    patience_s: after a longer time between two looks, which is a pause, counting begins anew.
    """

    def __init__(self, places: Places, patience_s: float, now_s: float) -> None:
        self._places = places
        self.patience_s = patience_s
        self._looked_s = now_s
        # Since when the looker has run without a pause.
        self._since_s = now_s

    def look(self, now_s: float) -> None:
        """It is so late; by time.monotonic()."""
        if now_s - self._looked_s > self.patience_s:
            self._since_s = now_s
        self._looked_s = now_s

    def still_s(self, number: int) -> float:
        """For how long the loop of the process at this place had not turned at the last look."""
        return self.still_since(self._places[number].beat_s)

    def still_since(self, beat_s: float) -> float:
        """For how long a loop had not turned at the last look that did so last at `beat_s`."""
        return max(0.0, self._looked_s - max(self._since_s, beat_s))
