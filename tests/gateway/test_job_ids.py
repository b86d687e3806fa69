"""Ids of jobs: whoever has one can ask for its job, and nobody can make, guess or alter one."""

from __future__ import annotations

import base64
import hashlib
import random
import string

import pytest

from gatewayx.core.keyed_hash import sip_digest
from gatewayx.gateway.job_ids import JobIds

KEY = bytes(range(16))
NEW_KEY = bytes(range(16, 32))
# What tokens of two names have.
ALICE = hashlib.sha256(b"alice").digest()[:16]
BOB = hashlib.sha256(b"bob").digest()[:16]
LETTERS = (string.ascii_letters + string.digits + "-_").encode()


@pytest.fixture
def ids() -> JobIds:
    """Of one key."""
    return JobIds((KEY,))


class TestKept:
    @pytest.mark.parametrize("token_mark", [None, ALICE])
    @pytest.mark.parametrize("place", [0, 1, 255, 256, 65535])
    @pytest.mark.parametrize("mark", [1, 2**31, 2**32 - 1])
    def test_tells_place_and_mark(self, ids, place, mark, token_mark):
        text = ids.make_kept(place, mark, token_mark)
        assert (len(text), text[:1]) == (41, b"k")
        assert set(text) <= set(LETTERS)
        assert ids.kept_place(text, token_mark) == (place, mark)

    def test_each_is_another_one(self, ids):
        assert len({ids.make_kept(1, 2) for _ in range(1000)}) == 1000

    def test_is_its_tokens_alone(self, ids):
        made = {token_mark: ids.make_kept(1, 2, token_mark) for token_mark in (None, ALICE, BOB, bytes(16))}
        for token_mark, text in made.items():
            for asks in made:
                assert ids.kept_place(text, asks) == ((1, 2) if asks == token_mark else None)

    @pytest.mark.parametrize("token_mark", [None, ALICE])
    def test_any_other_letter_makes_it_none(self, ids, token_mark):
        text = ids.make_kept(3, 4, token_mark)
        for place in range(len(text)):
            for byte in range(256):
                changed = text[:place] + bytes([byte]) + text[place + 1 :]
                assert ids.kept_place(changed, token_mark) == ((3, 4) if changed == text else None)

    def test_one_that_is_cut_or_longer_is_none(self, ids):
        text = ids.make_kept(3, 4)
        for end in range(len(text)):
            assert ids.kept_place(text[:end]) is None
            assert ids.kept_place(text[end + 1 :]) is None
        for byte in range(256):
            assert ids.kept_place(text + bytes([byte])) is None
            assert ids.kept_place(bytes([byte]) + text) is None
        assert ids.kept_place(text * 2) is None

    def test_guesses_are_none(self, ids):
        chance = random.Random(5)
        for _ in range(10_000):
            assert ids.kept_place(b"k" + bytes(chance.choices(LETTERS, k=40))) is None

    def test_is_no_background_id(self, ids):
        text = ids.make_kept(3, 4)
        assert ids.background(text) is None
        assert ids.background(b"b" + text[1:]) is None


class TestKeys:
    def test_another_key_reads_nothing(self, ids):
        text = ids.make_kept(1, 2, ALICE)
        assert JobIds((NEW_KEY,)).kept_place(text, ALICE) is None

    def test_the_first_signs_and_both_are_read(self):
        old = JobIds((KEY,))
        text = old.make_kept(1, 2, ALICE)
        ids = JobIds((NEW_KEY, KEY))
        assert ids.kept_place(text, ALICE) == (1, 2)
        assert ids.kept_place(text, BOB) is None
        new = ids.make_kept(3, 4)
        assert old.kept_place(new) is None
        assert ids.kept_place(new) == (3, 4)
        ids.change((NEW_KEY,))
        assert ids.kept_place(text, ALICE) is None
        assert ids.kept_place(new) == (3, 4)

    @pytest.mark.parametrize("keys", [(), (KEY, KEY, KEY), (KEY[:15],), (KEY + b"x",), (KEY, b"")])
    def test_what_are_no_keys_is_refused(self, keys):
        with pytest.raises(ValueError, match="one or two keys"):
            JobIds(keys)
        ids = JobIds((KEY,))
        text = ids.make_kept(1, 2)
        with pytest.raises(ValueError, match="one or two keys"):
            ids.change(keys)
        assert ids.kept_place(text) == (1, 2)

    def test_the_tag_is_the_hash_that_is_told(self, ids):
        # As anybody would compute it who has the key and the description.
        text = ids.make_kept(3, 4, ALICE)
        told = base64.urlsafe_b64decode(text[1:])
        expected = sip_digest(KEY, b"k\1" + bytes(6) + ALICE + told[:22])
        assert told[22:] == expected.to_bytes(8, "big")
