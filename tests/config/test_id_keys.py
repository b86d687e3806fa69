"""The file with the keys of ids: what it may say, who may write to it, and that no message tells a key on."""

from __future__ import annotations

import hashlib

import pytest
from click.testing import CliRunner

from gatewayx.cli import main
from gatewayx.config import id_keys
from gatewayx.config.id_keys import MOST_DIGITS, MOST_FILE_BYTES
from gatewayx.errors import SettingError

ONE = "0123456789abcdef" * 4
TWO = "fedcba9876543210" * 2


def key_of(digits: str) -> bytes:
    """The key that these digits are."""
    return hashlib.blake2b(bytes.fromhex(digits), digest_size=16).digest()


@pytest.mark.parametrize(
    ("content", "digits"),
    [
        (ONE, [ONE]),
        (f"{ONE}\n", [ONE]),
        (f"{ONE}\r\n{TWO}\r\n", [ONE, TWO]),
        (f"\n# since November\n  {ONE.upper()}\t\n\n# before\n{TWO}\n\n", [ONE, TWO]),
        ("a" * MOST_DIGITS, ["a" * MOST_DIGITS]),
    ],
)
def test_keys_of_any_length_in_lines_of_their_own(content, digits):
    assert id_keys.parse("k", content.encode()) == tuple(key_of(each) for each in digits)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "has no key"),
        ("\n# nothing\n", "has no key"),
        (ONE[:30], "line 1 is not allowed"),
        (ONE + "a", "line 1 is not allowed"),
        ("a" * (MOST_DIGITS + 2), "line 1 is not allowed"),
        (f"# key\n{ONE} {TWO}", "line 2 is not allowed"),
        (f"key = {ONE}", "line 1 is not allowed"),
        (f"{ONE}\n0x{TWO}", "line 2 is not allowed"),
        (f"{ONE}\n{TWO[:-1]}\N{FULLWIDTH DIGIT ONE}", "line 2 is not allowed"),
        (f"{ONE}\n\n{ONE.upper()}", "line 3 is the same key"),
        (f"{ONE}\n{TWO}\n{ONE[::-1]}", "line 3 is a key too many"),
    ],
)
def test_what_is_no_key_is_told_by_its_line_alone(content, reason):
    with pytest.raises(SettingError) as caught:
        id_keys.parse("/k", content.encode())
    message = str(caught.value)
    assert message.startswith(f"id-key = '/k': {reason}")
    assert ONE[:16].lower() not in message.lower()
    assert TWO[:16] not in message


class TestFile:
    @pytest.mark.parametrize("mode", [0o600, 0o400])
    def test_one_that_is_its_owners_alone(self, tmp_path, mode):
        path = tmp_path / "k"
        path.write_text(ONE)
        path.chmod(mode)
        assert id_keys.read(str(path)) == ((key_of(ONE),), None)

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
    def test_one_that_others_may_read_is_warned_of(self, tmp_path, mode):
        path = tmp_path / "k"
        path.write_text(ONE)
        path.chmod(mode)
        keys, warning = id_keys.read(str(path))
        assert keys == (key_of(ONE),)
        assert warning == f"id-key = {str(path)!r} may be read by others than its owner (mode {mode:04o})"

    @pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
    def test_one_that_others_may_write_to_is_refused(self, tmp_path, mode):
        path = tmp_path / "k"
        path.write_text(ONE)
        path.chmod(mode)
        with pytest.raises(SettingError, match=f"may be written to by others than its owner .mode {mode:04o}"):
            id_keys.read(str(path))

    def test_one_that_cannot_be_read_is_told(self, tmp_path):
        with pytest.raises(SettingError, match="cannot be read, No such file"):
            id_keys.read(str(tmp_path / "none"))
        with pytest.raises(SettingError, match="is no regular file"):
            id_keys.read(str(tmp_path))
        with pytest.raises(SettingError, match="is no regular file"):
            id_keys.read("/dev/zero")
        (tmp_path / "large").write_text("#" * (MOST_FILE_BYTES + 1))
        with pytest.raises(SettingError, match="is larger than"):
            id_keys.read(str(tmp_path / "large"))

    def test_check_finds_out_whether_it_can_be_used(self, tmp_path):
        path = tmp_path / "k"
        path.write_text(ONE)
        path.chmod(0o600)
        checked = CliRunner().invoke(main, ["check", "--id-key", str(path)])
        assert (checked.exit_code, ONE[:16] in checked.output) == (0, False)
        path.write_text(ONE[:-1])
        checked = CliRunner().invoke(main, ["check", "--id-key", str(path)])
        assert checked.exit_code == 2
        assert f"gatewayx: id-key = {str(path)!r}: line 1 is not allowed" in checked.output
