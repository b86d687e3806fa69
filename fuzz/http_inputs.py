"""Inputs of the target http_connection to begin with, and the tokens to make more of.

An input is two bytes (settings, how it is run), the script, and the client's bytes, in which FILLER_MARK stands for
FILLER. Each byte of the script is an event, its kind in the lower four bits and its argument in the upper four; `Play`
in the target says what each does. One that has no script compares the client's bytes whole, cut, and cut short.
"""

from __future__ import annotations

from fuzz.world import OptionAnswer

# Bits of the first byte.
COMPAT, TIGHT_BUDGET, FEW_JOBS, ONE_CONNECTION = 1, 2, 4, 8
CUT_SHIFT = 4
# Bits of the second byte: there is a script, and there are two worker processes; above, the pairs of events.
SCRIPTED, TWO_WORKERS = 1, 2
PAIRS_SHIFT = 2
# Of the upper four; what job servers answer to OPTION_REQ beside what they do to those.
OPTION_ANSWERS = {12: OptionAnswer.ERROR, 13: OptionAnswer.NONE, 14: OptionAnswer.CLOSED}
# Clients that declare a body and send nothing of it.
MAX_PARKED = 24
MAX_BODY_BYTES = 40_000
# What makes bodies larger than inputs.
FILLER_MARK = b"{8K}"
FILLER = b"w" * 8192
MAX_FILLERS = 8
# What arrives from a job server that is broken or is none.
GARBAGE = (
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"\0RES\0\0\0\x08\0\0\0\x08H:fuzz:1",
    b"\0RES\0\0\0\x08\0\0\0\x05\xff\r\n:x",
    b"\0RES\0\0\0\x0d\0\0\0\x0cH:fuzz:9999\0",
    b"\0RES\0\0\0\x13\0\0\0\x05code\0",
    b"\0RES\0\0\0\x1c\0\x02\0\0H:fuzz:1\0" + b"half of it" * 100,
    b"\0RES\0\0\0\x11\xff\xff\xff\xff",
    b"\0RES\0\0\0\x10\0\0\0\x01a",
    b"\0RES\0\0\0\x08\0\0\0\x0fH:fuzz:1\0behind",
    b"\0RES\0\0\0\x0e\0\x02\0\0H:fuzz:1\0" + b"the reason" * 100,
    b"\0RES\0\0\0\x0b\0\0\0\x05a\0b\0c",
)

HOST = b"Host: h\r\n"
# Long enough without tokens.
KEY = b"Idempotency-Key: 8e03978e-40d5-43dd-bc93-"
CHUNKED = b"Transfer-Encoding: chunked"
GOOD = b"POST /good HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\ngood"
DECLARED = b"POST /declared HTTP/1.1\r\n" + HOST
DECLARATIONS = (
    DECLARED + b"Content-Length: %d\r\n\r\n" % MAX_BODY_BYTES,
    DECLARED + b"Content-Length: %d\r\n\r\nw" % MAX_BODY_BYTES,
    DECLARED + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % MAX_BODY_BYTES,
    DECLARED + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % MAX_BODY_BYTES,
)
# How long those have declared and not sent when a good request comes.
PARKED_S = 1.5
CLIENTS = [
    b"POST /f HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nabcd",
    b"GET /f?a=b HTTP/1.1\r\n"
    + HOST
    + b"\r\n"
    + b"HEAD /g HTTP/1.1\r\n"
    + HOST
    + b"\r\n"
    + b"OPTIONS * HTTP/1.1\r\n\r\n",
    b"PUT /f HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n",
    (b"POST /f HTTP/1.1\r\n" + HOST + b"X-Gearman-Unique: u\r\nContent-Length: 1\r\n\r\na") * 6,
    (b"POST /f HTTP/1.1\r\n" + HOST + b"X-Gearman-Unique: -\r\nContent-Length: 1\r\n\r\na") * 3,
    b"POST /f HTTP/1.1\r\n"
    + HOST
    + b"X-Gearman-Background: true\r\nX-Gearman-Priority: high\r\nContent-Length: 0\r\n\r\n",
    b"POST /f HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nX-Gearman-Timeout: 0.5\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /f HTTP/1.0\r\n\r\n" + b"GET /f HTTP/1.1\r\n\r\n",
    b"DELETE /f HTTP/1.1\r\n"
    + HOST
    + b"\r\n"
    + b"POST /f?q HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 2\r\n\r\nab"
    + b"AAA\r\n",
    b"GET / HTTP/1.1\r\n"
    + HOST
    + b"\r\n"
    + b"GET /v1/x HTTP/1.1\r\n"
    + HOST
    + b"\r\n"
    + b"GET /%00 HTTP/1.1\r\n"
    + HOST
    + b"\r\n",
    b"POST /f HTTP/1.1\r\n"
    + HOST
    + b"Connection: close\r\nContent-Length: 1500\r\n\r\n"
    + b"w" * 1500
    + b"GET /f HTTP/1.1",
    b"POST /f HTTP/1.1\r\n" + HOST + b"Content-Length: 40001\r\n\r\n" + FILLER_MARK * 6,
    (b"POST /f HTTP/1.1\r\n" + HOST + b"Content-Length: 32768\r\n\r\n" + FILLER_MARK * 4) * 2,
    b"POST /f HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n6000\r\n" + FILLER_MARK * 3 + b"\r\n0\r\n\r\n",
    b"POST /f HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /f HTTP/1.1\r\n" + HOST + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\na" * 2,
    b"GET http://h/f HTTP/1.1\r\n" + HOST + b"X-Gearman-Unique: gatewayx-a\r\n\r\n" + b"GET /f HTTP/2.0\r\n\r\n",
    b"POST /a HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 1\r\n\r\na"
    + b"POST /b HTTP/1.1\r\n"
    + HOST
    + b"X-Gearman-Priority: none\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nb"
    + b"POST /c HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 1\r\n\r\nc",
]


def owned(method: bytes, count: int, body: bytes, *lines: bytes) -> bytes:
    """Requests with uniques of the client, of which each worker process owns some."""
    length = b"" if CHUNKED in lines else b"Content-Length: %d\r\n" % len(body.replace(FILLER_MARK, FILLER))
    more = b"".join(line + b"\r\n" for line in lines)
    return b"".join(
        method + b" /f HTTP/1.1\r\n" + HOST + b"X-Gearman-Unique: u%d\r\n" % number + length + more + b"\r\n" + body
        for number in range(count)
    )


# What may be another worker process's.
OWNED = [
    owned(b"POST", 8, b"abcd"),
    owned(b"PUT", 4, b"w" * 1500, b"X-Gearman-Background: true"),
    owned(b"HEAD", 4, b""),
    owned(b"POST", 4, FILLER_MARK * 3),
    owned(b"POST", 2, FILLER_MARK * 6),
    owned(
        b"POST",
        4,
        b"5;e=1\r\nabcde\r\n6000\r\n" + FILLER_MARK * 3 + b"\r\n0\r\nT: x\r\n\r\n",
        b"Transfer-Encoding: chunked",
    ),
    owned(b"POST", 4, b"5\r\nabcde\r\n3\r\nabcd\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
    owned(b"POST", 4, b"abcd", b"Expect: 100-continue", b"X-Gearman-Timeout: 0.5", b"X-Gearman-Priority: high"),
    owned(b"POST", 4, FILLER_MARK * 3, b"Connection: close"),
    b"".join(
        b"POST /f HTTP/1.1\r\n" + HOST + b"X-Gearman-Unique: -\r\nContent-Length: 2\r\n\r\n%02d" % number
        for number in range(8)
    ),
    owned(b"POST", 3, FILLER_MARK * 4)[:-8],
    owned(b"GET", 4, b"").replace(b"/f ", b"/f?workload "),
    owned(b"PUT", 4, FILLER_MARK * 3, b"X-Gearman-Background: true"),
    # The same uniques in the foreground and in the background.
    owned(b"POST", 2, b"abcd") + owned(b"POST", 2, b"abcd", b"X-Gearman-Background: true") + owned(b"POST", 2, b""),
]


def keyed(numbers: str, *lines: bytes, body: bytes = b"abcd") -> bytes:
    """POSTs with idempotency keys of these numbers."""
    more = b"".join(line + b"\r\n" for line in lines)
    length = b"Content-Length: %d\r\n" % len(body.replace(FILLER_MARK, FILLER))
    return b"".join(
        b"POST /f HTTP/1.1\r\n" + HOST + KEY + b"%b\r\n" % number.encode() + length + more + b"\r\n" + body
        for number in numbers
    )


# Keys that come again, alone and in several connections; of which each worker process owns some.
KEYED = [
    keyed("1"),
    keyed("11211"),
    keyed("12345678"),
    keyed("1122", b"X-Gearman-Background: true"),
    keyed("11", b"X-Gearman-Timeout: 0.5") + keyed("11"),
    keyed("1") + keyed("1", b"X-Gearman-Priority: high") + keyed("1", body=b"other") + keyed("1"),
    keyed("1212", body=FILLER_MARK * 3),
    keyed("1") + CLIENTS[0] + keyed("1", b"X-Gearman-Unique: u") + keyed("1", b"Expect: 100-continue"),
    keyed("1").replace(KEY + b"1", b'idempotency-key: "' + KEY[17:] + b'1"') + keyed("1"),
]


def batch(*lines: bytes, version: bytes = b"1.1") -> bytes:
    """A batch of these lines."""
    body = b"".join(line + b"\n" for line in lines)
    length = len(body.replace(FILLER_MARK, FILLER))
    return b"POST /v1/batch HTTP/%b\r\n" % version + HOST + b"Content-Length: %d\r\n\r\n" % length + body


def line_of(number: int, more: bytes = b"", workload: bytes = b"w") -> bytes:
    """A line of a batch that is a job."""
    return b'{"id":%d,"function":"f","workload":"%b"%b}' % (number, workload, more)


# More lines than may be under way, bad ones among them, uniques that others own, and results of any size.
BATCHES = [
    batch(*map(line_of, range(3))),
    batch(*map(line_of, range(12))) + CLIENTS[0],
    CLIENTS[0] + batch(line_of(1), b"", b"{", line_of(2, b',"background":true'), b'{"function":"f"}') + CLIENTS[0],
    batch(*(line_of(number, b',"unique":"u%d"' % (number % 3)) for number in range(8))),
    batch(line_of(1, b',"unique":"u"'), line_of(2, b',"unique":"u","background":true'), line_of(3, b',"timeout":0.5')),
    batch(*(line_of(number, b',"unique":"-"', b"%d" % (number % 2)) for number in range(4))),
    batch(*(line_of(number, workload=FILLER_MARK) for number in range(3))),
    batch() + batch(b"\r") + batch(line_of(1)) * 2,
    batch(line_of(1), line_of(2), version=b"1.0"),
    keyed("1") + batch(line_of(1, workload=b"abcd")) + keyed("1"),
    batch(*map(line_of, range(5)))[:-30],
]


def event(kind: int, argument: int = 0) -> int:
    """A byte of a script."""
    return kind | argument << 4


CREATED = bytes((event(1), event(2), event(10), event(10, 1), event(10), event(10, 1), event(10), event(10, 1)))
LARGE = bytes((event(12, 8), event(12, 9), event(13, 8), event(13, 9), event(12, 6), event(12, 7)))
# Links between the worker processes that end, that are refused, and at which nobody reads for a while.
RELAY_SCRIPTS = [
    bytes((event(1), event(2), event(8), event(1), event(10), event(8, 15), event(11, 9), event(2))),
    bytes((event(8, 13), event(1), event(2), event(8, 13), event(8), event(1), event(10), event(13, 6), event(12, 7))),
    bytes(
        (
            event(8, 14),
            event(1),
            event(3, 4),
            event(8, 14),
            event(2),
            event(10),
            event(13, 8),
            event(8, 14),
            event(12, 8),
        )
    ),
    # Large results, of jobs at the only connection of each; then to a client, or over a link, that takes little.
    CREATED + LARGE,
    bytes((event(4, 12),)) + CREATED + LARGE + bytes((event(5, 9), event(2), event(5, 12), event(7))),
    CREATED + bytes((event(8, 14),)) + LARGE + bytes((event(2), event(8, 14), event(2), event(8, 15))),
    bytes((event(0, 15), event(2), event(6), event(8), event(0, 11), event(2), event(7), event(8), event(1), event(4))),
]
# A client at each of two processes sends the beginning of a large body, which comes to the owner as it arrives.
BEGINNINGS = bytes((event(8), event(0, 15), event(2), event(8, 8), event(0, 15), event(2)))
ENDINGS = bytes((event(1), event(8, 9), event(1), event(2)))
SLOWLY = bytes((event(8, 12), event(2), event(3, 6), event(8, 12), event(2)))
BODY_SCRIPTS = [
    # A link that takes it slowly, and one that takes it too slowly.
    bytes((event(8, 12),))
    + BEGINNINGS
    + ENDINGS
    + SLOWLY * 2
    + bytes((event(8, 14), event(2), event(10), event(12, 8))),
    bytes((event(8, 12),)) + BEGINNINGS + ENDINGS + SLOWLY + bytes((event(3, 11), event(3, 12), event(3, 15))),
    # The owner goes, refuses what is unfinished, and drains; the clients go.
    BEGINNINGS + bytes((event(8, 15), event(2), event(8, 15))) + ENDINGS,
    BEGINNINGS + bytes((event(9, 14), event(2))) + ENDINGS,
    BEGINNINGS + bytes((event(9, 15), event(2))) + ENDINGS + bytes((event(10), event(12, 8))),
    BEGINNINGS + bytes((event(7), event(2), event(8, 9), event(6), event(2))),
    BEGINNINGS + bytes((event(3, 11), event(3, 12))) + ENDINGS,
]


# Three clients with the same bytes, the last of which leaves.
SEVERAL = bytes((event(1), event(8), event(1), event(2), event(8), event(1), event(10), event(6), event(2), event(12)))


def scripted(bits: int, script: bytes, client: bytes, how: int = 0) -> bytes:
    """An input with a script of at most 126 events; how: TWO_WORKERS, or one."""
    # Events come in pairs: a turn of the loop more changes nothing.
    script += bytes((event(2),)) * (len(script) % 2)
    return bytes((bits, len(script) // 2 << PAIRS_SHIFT | SCRIPTED | how)) + script + client


def parts_of(data: bytes) -> tuple[int, int, bytes, bytes]:
    """Of an input the settings, how it is run, the script, and the client's bytes."""
    bits, how = data[:2]
    events = 2 * (how >> PAIRS_SHIFT) if how & SCRIPTED else 0
    return bits, how, data[2 : 2 + events], data[2 + events :].replace(FILLER_MARK, FILLER, MAX_FILLERS)


SCRIPTS = [
    bytes((event(1), event(2), event(10), event(12))),
    bytes((event(0, 8), event(3, 9), event(1), event(10), event(13, 2), event(13, 6), event(6), event(12, 2))),
    bytes((event(4), event(1), event(2), event(11, 9), event(2), event(3, 12), event(5), event(2))),
    bytes((event(1), event(8), event(1), event(2), event(10), event(10), event(10), event(7), event(13), event(12))),
    bytes((event(1), event(10), event(13, 6), event(13, 7), event(15, 10), event(3, 2), event(3, 2), event(1))),
    bytes((event(0, 7), event(9, 15), event(1), event(2), event(9, 14), event(3, 15))),
    bytes((event(1), event(10), event(3, 13), event(12, 8), event(14, 1), event(11), event(15, 14), event(3, 3))),
    bytes((event(15), event(1), event(2), event(3, 5), event(15), event(9, 5), event(10), event(12, 6), event(2))),
    bytes((event(8), event(8), event(8), event(1), event(8, 9), event(1), event(10), event(14), event(11, 1))),
    bytes((event(4, 9), event(1), event(2), event(10), event(12, 8), event(2), event(9, 15), event(2), event(5, 12))),
]


def seeds() -> list[bytes]:
    """Inputs to begin with: every kind of client's bytes compared, and with some script."""
    inputs: list[bytes] = []
    for number, client in enumerate(CLIENTS):
        inputs += (bytes((number % 16 << CUT_SHIFT, how)) + client for how in (0, TWO_WORKERS))
        for turn in (0, 4):
            script = SCRIPTS[(number + turn) % len(SCRIPTS)]
            inputs.append(scripted(number % 16, script, client))
    for number, script in enumerate(SCRIPTS):
        inputs += (scripted(number % 16, script, CLIENTS[3], how) for how in (0, TWO_WORKERS))
    before = bytes((event(1), event(2), event(15, 14), event(10), event(12), event(15, 14), event(3, 11)))
    between = bytes((event(1), event(2), event(10), event(15, 14), event(3, 11)))
    at_once = bytes((event(1), event(10), event(15, 14)))
    for number in range(len(GARBAGE)):
        # The bytes of a client choose what comes from a broken job server.
        for script, client in ((before, CLIENTS[3]), (before, CLIENTS[0] * 3), (between, CLIENTS[0] * 3)):
            inputs.append(scripted(ONE_CONNECTION, script, client + b"\r\n" * number))
        # A head that is not whole waits beside a job whose end is swallowed.
        beginning = b"GET /" + b"f" * number
        inputs.append(scripted(ONE_CONNECTION, at_once, CLIENTS[0] + beginning))
    for kind in OPTION_ANSWERS:
        inputs.append(scripted(kind << CUT_SHIFT, SCRIPTS[0], CLIENTS[3]))
    parked = bytes(event(8, 4 + number % 4) for number in range(MAX_PARKED))
    for bits in (0, TIGHT_BUDGET):
        inputs.append(scripted(bits, parked, CLIENTS[0]))
    for number, client in enumerate(OWNED):
        scripts = [*RELAY_SCRIPTS, SCRIPTS[number % len(SCRIPTS)]]
        if FILLER_MARK in client:
            scripts += BODY_SCRIPTS
        for script in scripts:
            inputs += (scripted(bits, script, client, TWO_WORKERS) for bits in (ONE_CONNECTION, TIGHT_BUDGET))
        inputs.append(scripted(FEW_JOBS, RELAY_SCRIPTS[0], client, TWO_WORKERS))
        inputs.append(bytes((number << CUT_SHIFT, TWO_WORKERS)) + client)
    for number, client in enumerate((*KEYED, *BATCHES)):
        for how in (0, TWO_WORKERS):
            for script in (*SCRIPTS, *RELAY_SCRIPTS[how // 2 * 4 :], SEVERAL):
                bits = (0, ONE_CONNECTION, TIGHT_BUDGET, FEW_JOBS)[(number + script[0]) % 4]
                inputs.append(scripted(bits, script, client, how))
            inputs.append(bytes((number % 16 << CUT_SHIFT, how)) + client)
    return inputs


TOKENS = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"OPTIONS ",
    b"CONNECT ",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"\r\n",
    b"\r\n\r\n",
    HOST,
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\n",
    b"X-Gearman-Unique: u\r\n",
    b"X-Gearman-Background: true\r\n",
    b"X-Gearman-Priority: low\r\n",
    b"X-Gearman-Timeout: 1\r\n",
    KEY + b"1\r\n",
    KEYED[0],
    BATCHES[0],
    line_of(7) + b"\n",
    b"0\r\n\r\n",
    b"1;a=b\r\na\r\n",
    FILLER_MARK,
    CLIENTS[0],
    CLIENTS[2],
    *SCRIPTS,
]
