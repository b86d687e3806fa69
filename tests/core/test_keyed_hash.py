"""The keyed hashes: SipHash-2-4 with 128 and with 64 bits of output."""

from __future__ import annotations

import random

import pytest

from gatewayx.core.keyed_hash import KeyedHash, short_digest, sip_digest

KEY = bytes(range(16))

# Of the bytes 0, 1, 2 … so many, by the authors' reference code (vectors_sip128 in vectors.h).
VECTORS = {
    0: "a3817f04ba25a8e66df67214c7550293",
    1: "da87c1d86b99af44347659119b22fc45",
    2: "8177228da4a45dc7fca38bdef60affe4",
}


def digest(*pieces: bytes, key: bytes = KEY) -> bytes:
    state = KeyedHash(key)
    for piece in pieces:
        state.update(piece)
    return state.digest()


@pytest.mark.parametrize(("size_bytes", "expected"), VECTORS.items())
def test_the_vectors_of_the_reference_code(size_bytes, expected):
    assert digest(bytes(range(size_bytes))).hex() == expected


# The same with 64 bits of output (vectors_sip64).
SHORT_VECTORS = {
    0: "310e0edd47db6f72",
    1: "fd67dc93c539f874",
    2: "5a4fa9d909806c0d",
    15: "e545be4961ca29a1",
}


@pytest.mark.parametrize(("size_bytes", "expected"), SHORT_VECTORS.items())
def test_the_vectors_of_the_short_output(size_bytes, expected):
    assert sip_digest(KEY, bytes(range(size_bytes))).to_bytes(8, "little").hex() == expected


# The same function in Python, from the paper.
MASK = (1 << 64) - 1


def reference(key: bytes, message: bytes, in_rounds: int = 2, end_rounds: int = 4) -> bytes:
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def turned(word: int, bits: int) -> int:
        return (word << bits | word >> (64 - bits)) & MASK

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & MASK
            v[1] = turned(v[1], 13) ^ v[0]
            v[0] = turned(v[0], 32)
            v[2] = (v[2] + v[3]) & MASK
            v[3] = turned(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & MASK
            v[3] = turned(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & MASK
            v[1] = turned(v[1], 17) ^ v[2]
            v[2] = turned(v[2], 32)

    padded = message + bytes(7 - len(message) % 8) + bytes([len(message) & 0xFF])
    for start in range(0, len(padded), 8):
        word = int.from_bytes(padded[start : start + 8], "little")
        v[3] ^= word
        rounds(in_rounds)
        v[0] ^= word
    v[2] ^= 0xEE
    rounds(end_rounds)
    low = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    rounds(end_rounds)
    return (low | (v[0] ^ v[1] ^ v[2] ^ v[3]) << 64).to_bytes(16, "little")


@pytest.mark.parametrize("size_bytes", [*range(70), 255, 256, 257, 5000])
def test_any_length_however_it_is_cut(size_bytes):
    generator = random.Random(size_bytes)
    message, key = generator.randbytes(size_bytes), generator.randbytes(16)
    expected = reference(key, message)
    assert digest(message, key=key) == expected
    assert digest(*(message[index : index + 1] for index in range(size_bytes)), key=key) == expected
    cuts = sorted(generator.choices(range(size_bytes + 1), k=4))
    pieces = [message[start:end] for start, end in zip([0, *cuts], [*cuts, size_bytes], strict=True)]
    assert digest(*pieces, key=key) == expected


def test_a_digest_ends_nothing():
    state = KeyedHash(KEY)
    state.update(b"before")
    assert state.digest() == state.digest() == digest(b"before")
    state.update(b" and after")
    assert state.digest() == digest(b"before and after")
    assert state.hashed_bytes == 16


@pytest.mark.parametrize("key", [b"", bytes(15), bytes(17)])
def test_a_key_of_another_length_is_refused(key):
    with pytest.raises(ValueError, match="a key of"):
        KeyedHash(key)


@pytest.mark.parametrize("size_bytes", [*range(34), 55, 1000])
def test_the_one_of_short_texts_is_siphash_1_3(size_bytes):
    text = random.Random(size_bytes).randbytes(size_bytes)
    expected = reference(KEY, text, 1, 3)
    assert short_digest(KEY, text) == (
        int.from_bytes(expected[:8], "little"),
        int.from_bytes(expected[8:], "little"),
    )
