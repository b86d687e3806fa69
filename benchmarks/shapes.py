"""The requests that loads are made of, one definition for wrk and for the clients in Python.

A shape is a head as a format: each `%s` in it stands for ten digits that no other request has.
"""

import hashlib

from support import HOST

SMALL = "small"
NEVER_REPEATING = "never repeating"
# The same with a unique of the client's, by which the gateway keeps apart what a job server would merge.
OWN_UNIQUES = "never repeating, with uniques"
BROWSER = "a browser's"
# With a token, of which TOKENS is the file.
WITH_TOKEN = "with a token"
SHAPES = (SMALL, NEVER_REPEATING, OWN_UNIQUES, BROWSER, WITH_TOKEN)
PAYLOAD_BYTES = 20

# Nobody's but the benchmarks'.
TOKEN = "gwx_" + "benchmarks-" * 3 + "0123456789" + "43a2f0b9"
TOKENS = f"""
[[token]]
name = "benchmark"
sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"
"""

# What a browser's `fetch` sends of a page that keeps its address for itself: with Host and Content-Length twelve.
BROWSER_HEADERS = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: */*",
    "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Content-Type: text/plain;charset=UTF-8",
    "Origin: https://app.example.com",
    "Connection: keep-alive",
    "Sec-Fetch-Dest: empty",
    "Sec-Fetch-Mode: cors",
    "Sec-Fetch-Site: same-site",
)


def head_format(shape: str, background: bool, port: int, function: str = "echo") -> str:
    """The head of a POST; of the never repeating ones the function, two headers and any unique differ each time."""
    lines = [f"Host: {HOST}:{port}"]
    if shape in (NEVER_REPEATING, OWN_UNIQUES):
        function = "f/%s"
        lines += ["X-Request-Id: %s", "Cookie: session=%s"]
        if shape == OWN_UNIQUES:
            lines.append("X-Gearman-Unique: %s")
    elif shape == BROWSER:
        lines += BROWSER_HEADERS
    elif shape == WITH_TOKEN:
        lines.append(f"Authorization: Bearer {TOKEN}")
    if background:
        lines.append("X-Gearman-Background: true")
    lines.append(f"Content-Length: {PAYLOAD_BYTES}")
    return "\r\n".join([f"POST /{function} HTTP/1.1", *lines, "", ""])


class RequestSeries:
    """Whole requests of a shape, one after the other; those of one tag are all different."""

    def __init__(self, head: str, run_tag: str) -> None:
        self._head = head
        self._run_tag = run_tag
        self._places = head.count("%s")
        self._sent = 0

    def next(self) -> bytes:
        self._sent += 1
        digits = f"{(int(self._run_tag, 16) + self._sent) % 10**10:010d}"
        payload = f"{self._run_tag}{self._sent:012d}"
        return (self._head % ((digits,) * self._places) + payload).encode()
