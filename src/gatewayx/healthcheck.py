"""`gatewayx healthcheck`: asks a running gateway's admin address whether all is well, for images without a shell."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from gatewayx.address import Address
from gatewayx.errors import StartError

# Of an answer; ours are a few hundred bytes.
MAX_ANSWER_BYTES = 64 * 1024
# Who listens at all addresses is asked at this one.
SAME_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def ask(address: Address, path: str, timeout_s: float) -> None:
    """Return if the answer is 200. Raises StartError with the reason if it is another one, or none in this time."""
    ends_s = time.monotonic() + timeout_s
    asking = _Asking(lambda: _answer(address, path, ends_s))
    try:
        answer = asking.answer(timeout_s)
    except TimeoutError:
        raise StartError(f"the admin address {address} gave no answer within {timeout_s:g} s") from None
    except OSError as error:
        raise StartError(f"the admin address {address} cannot be asked: {error.strerror or error}") from None
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
        raise StartError(f"what answers at {address} is not HTTP")
    if words[1] != b"200":
        raise StartError(f"{path} is {_printable(words[1])}: {_reasons(body)}")


class _Asking(threading.Thread):
    """Asks in a thread of its own, which is left behind if need be: a lookup of a name lasts as long as it likes."""

    def __init__(self, ask: Callable[[], bytes]) -> None:
        super().__init__(daemon=True)
        self._ask = ask
        self._answer = b""
        self._error: OSError | None = None
        self.start()

    def run(self) -> None:
        """See Thread."""
        try:
            self._answer = self._ask()
        except OSError as error:
            self._error = error

    def answer(self, timeout_s: float) -> bytes:
        """What was answered. Raises OSError."""
        self.join(timeout_s)
        if self.is_alive():
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._answer


def _answer(address: Address, path: str, ends_s: float) -> bytes:
    host = SAME_HOST.get(address.host, address.host)
    request = f"GET {path}?verbose HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = b""
    with socket.create_connection((host, address.port), _left_s(ends_s)) as connection:
        connection.sendall(request.encode())
        while len(answer) < MAX_ANSWER_BYTES:
            connection.settimeout(_left_s(ends_s))
            piece = connection.recv(4096)
            if not piece:
                break
            answer += piece
    return answer


def _left_s(ends_s: float) -> float:
    left_s = ends_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _reasons(body: bytes) -> str:
    """The checks that have failed, or the body if it tells of none."""
    lines = body.splitlines()
    failed = [line.removeprefix(b"[-]") for line in lines if line.startswith(b"[-]")]
    return _printable(b"; ".join(failed or lines))


def _printable(text: bytes) -> str:
    return text.decode("latin-1").encode("unicode_escape").decode("ascii")
