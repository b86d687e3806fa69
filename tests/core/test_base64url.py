"""Base64url without padding: one text for any bytes, and no other."""

from __future__ import annotations

import base64
import itertools
import random

import pytest

from gatewayx.core.base64url import decoded, encoded

LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize("size_bytes", range(40))
def test_is_that_of_the_standard_library(size_bytes):
    chance = random.Random(size_bytes)
    for _ in range(50):
        data = chance.randbytes(size_bytes)
        letters = encoded(data)
        assert letters == base64.urlsafe_b64encode(data).rstrip(b"=")
        assert decoded(letters) == data


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_is_read_is_what_is_written(count):
    # All texts of up to three bytes that may end a longer one, with bytes that are next to letters.
    for text in itertools.product(LETTERS + b"=+/.~ \0", repeat=count):
        letters = bytes(text)
        data = decoded(letters)
        assert data is None or encoded(data) == letters
        assert (data is not None) == (
            all(letter in LETTERS for letter in letters)
            and base64.urlsafe_b64encode(base64.urlsafe_b64decode(letters + b"==="[: -count % 4])).rstrip(b"=")
            == letters
            if count != 1
            else False
        )


@pytest.mark.parametrize("byte", [byte for byte in range(256) if byte not in LETTERS])
def test_any_other_byte_is_no_letter(byte):
    for place in range(4):
        letters = bytearray(b"AAAA")
        letters[place] = byte
        assert decoded(bytes(letters)) is None
