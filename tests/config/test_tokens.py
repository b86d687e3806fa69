"""The file of tokens: what it may say, who may write to it, and that no message tells a secret on."""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import sys
import zlib

import pytest
from click.testing import CliRunner

from gatewayx.cli import main
from gatewayx.config import tokens
from gatewayx.config.tokens import MOST_FILE_BYTES, MOST_TOKENS, TokenEntry
from gatewayx.errors import SettingError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHA256 = "ab" * 32
SECRET = "gwx_" + "A-_z" * 10 + "012" + "01234567"
ALL = f"""
[[token]]
name = "shop.web@2-x_y"
sha256 = "{SHA256.upper()}"
functions = ["resize", "image-*"]
rate = 2.5
burst = 10
max_jobs = 3
highest_priority = "normal"
background = false
expires = 2027-01-31T12:00:00+01:00
"""


def table(*lines: str, name: str = "shop", sha256: str = SHA256) -> str:
    """A [[token]] table."""
    return "\n".join(["[[token]]", f'name = "{name}"', f'sha256 = "{sha256}"', *lines, ""])


def parsed(text: str) -> tuple[TokenEntry, ...]:
    """What a file with this text has."""
    return tokens.parse("t.toml", text.encode())


def complaint(text: str | bytes) -> str:
    """What is said of a file with this content."""
    with pytest.raises(SettingError) as caught:
        tokens.parse("t.toml", text if isinstance(text, bytes) else text.encode())
    return str(caught.value)


class TestContent:
    def test_everything_that_a_table_may_say(self):
        assert parsed(ALL) == (
            TokenEntry(
                name="shop.web@2-x_y",
                sha256=bytes.fromhex(SHA256),
                functions=("resize", "image-*"),
                rate=2.5,
                burst=10,
                max_jobs=3,
                highest_priority="normal",
                background=False,
                expires_s=datetime.datetime(2027, 1, 31, 11, tzinfo=datetime.timezone.utc).timestamp(),
            ),
        )

    def test_what_it_leaves_out_is_not_limited(self):
        [entry] = parsed(table())
        assert entry == TokenEntry(name="shop", sha256=bytes.fromhex(SHA256))
        assert (entry.functions, entry.rate, entry.max_jobs) == ((), 0, 0)
        assert (entry.highest_priority, entry.background, entry.expires_s) == ("high", True, None)

    def test_a_date_is_its_beginning_in_utc(self):
        [entry] = parsed(table("expires = 2027-01-31"))
        assert entry.expires_s == datetime.datetime(2027, 1, 31, tzinfo=datetime.timezone.utc).timestamp()

    @pytest.mark.parametrize("text", ["", "# nobody\n", "token = []\n"])
    def test_an_empty_file_has_nobody(self, text):
        assert parsed(text) == ()

    def test_two_tables_of_a_name_are_two_tokens(self):
        assert [entry.name for entry in parsed(table() + table(sha256="cd" * 32))] == ["shop", "shop"]

    def test_two_tables_of_a_sha256_are_refused(self):
        text = complaint(table() + table(name="other", sha256=SHA256.upper()))
        assert text == "tokens = 't.toml': [[token]] shop and [[token]] other: both have the same sha256"

    @pytest.mark.parametrize(
        ("line", "key"),
        [
            ("functions = []", "functions"),
            ('functions = "a"', "functions"),
            ("functions = [1]", "functions"),
            ('functions = ["a", "a"]', "functions"),
            ('functions = ["a*b"]', "functions"),
            ("rate = 0", "rate"),
            ("rate = -1", "rate"),
            ("rate = nan", "rate"),
            ("rate = inf", "rate"),
            ("rate = true", "rate"),
            ('rate = "1/s"', "rate"),
            (f"rate = {10**400}", "rate"),
            ("rate = 1\nburst = 0", "burst"),
            ("rate = 1\nburst = 1.5", "burst"),
            ("rate = 0.001\nburst = 87", "burst"),
            ("max_jobs = 0", "max_jobs"),
            ("max_jobs = true", "max_jobs"),
            ("max_jobs = 1000001", "max_jobs"),
            ('highest_priority = "High"', "highest_priority"),
            ("highest_priority = []", "highest_priority"),
            ('background = "no"', "background"),
            ("background = 0", "background"),
            ("expires = 2027-01-31T12:00:00", "expires"),
            ("expires = 12:00:00", "expires"),
            ("san = []", "san"),
            ("san = 1", "san"),
            ('san = ""', "san"),
            ('san = "shop.example"', "san"),
            ('san = "DNS:"', "san"),
            ('san = "dns:a"', "san"),
            ('san = "DNS:*.example"', "san"),
            ('san = "URI:https://example/*"', "san"),
            ('san = "DNS:a b"', "san"),
            ('san = "DNS:\\u00e4"', "san"),
            ('san = "IP:192.0.2"', "san"),
            ('san = "IP:192.0.2.0/24"', "san"),
            ('san = "IP:fe80::1%1"', "san"),
            ('san = "RID:1.2.3"', "san"),
            ('san = ["DNS:a", 1]', "san"),
            (f'san = "DNS:{"a" * 1024}"', "san"),
            (f"san = {[f'DNS:{number}' for number in range(65)]}", "san"),
            ('expires = "2027-01-31"', "expires"),
        ],
    )
    def test_a_bad_value_is_told_by_file_table_and_key(self, line, key):
        assert complaint(table(line)).startswith(
            f"tokens = 't.toml': [[token]] shop: {key} is not allowed: it must be "
        )

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            (table("function = []"), "[[token]] shop: 'function' is no key of a token"),
            (table("burst = 1"), "[[token]] shop: burst is of no use without rate"),
            (table() + "[[token]]\n", "[[token]] number 2: name is missing"),
            ('[[token]]\nname = "shop"\n', "[[token]] shop: sha256 is missing, and san, one of which it needs"),
            (table('san = ["DNS:a", "DNS:A"]'), "[[token]] shop: san has the same name twice"),
            (table(sha256="ab"), "[[token]] shop: sha256 is not allowed"),
            (table(sha256=" " * 64), "[[token]] shop: sha256 is not allowed"),
            ("a = 1\n", "the key 'a' is not known"),
            ("[token]\n", "token is no [[token]] table"),
            ("token = [1]\n", "token is no [[token]] table"),
            ("[[token]\n", "is not TOML"),
            (f"a = {'[' * 20_000}", "is not TOML"),
            (f"a = {'1' * 10_000}", "is not TOML"),
        ],
    )
    def test_other_faults(self, text, told):
        assert complaint(text).startswith(f"tokens = 't.toml': {told}")

    def test_what_is_no_text(self):
        assert complaint(b"\xff") == "tokens = 't.toml': is not UTF-8"

    @pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "_other", "\\u00e4", "a/b", "a\\n", SECRET])
    def test_a_name_that_is_none_is_told_by_the_tables_number(self, name):
        assert complaint(table(name=name)).startswith("tokens = 't.toml': [[token]] number 1: name is not allowed")

    def test_so_many_tokens_and_no_more(self):
        text = "".join(table(sha256=f"{number:064x}") for number in range(MOST_TOKENS))
        assert len(parsed(text)) == MOST_TOKENS
        assert complaint(text + table()) == f"tokens = 't.toml': more than {MOST_TOKENS} tokens"
        assert len(text) < MOST_FILE_BYTES

    @pytest.mark.parametrize(
        "text",
        [
            table(sha256=SECRET),
            table(name=SECRET),
            table(f'{SECRET} = "a"'),
            table(f'max_jobs = "{SECRET}"'),
            table(f'functions = ["{SECRET}*a"]'),
            f'{SECRET} = "a"\n',
            f"[{SECRET}]\n[{SECRET}]\n",
            f"{SECRET}\n",
            f'a.{SECRET} = "a"\na.{SECRET} = "a"\n',
        ],
    )
    def test_a_token_in_the_wrong_place_is_not_told_on(self, text):
        told = complaint(text)
        assert SECRET[4:30] not in told
        assert told.startswith("tokens = 't.toml': ")


class TestCertificates:
    @pytest.mark.parametrize(
        ("san", "names"),
        [
            ('"DNS:Shop.Example"', ("DNS:shop.example",)),
            ('["URI:Spiffe://A/b", "email:A@b.example"]', ("URI:Spiffe://A/b", "email:A@b.example")),
            ('["IP:192.0.2.1", "IP:2001:DB8::0:1"]', ("IP:192.0.2.1", "IP:2001:db8::1")),
        ],
    )
    def test_names_stand_for_a_token_with_and_without_a_secret(self, san, names):
        [entry] = parsed(f'[[token]]\nname = "shop"\nsan = {san}\n')
        assert entry == TokenEntry(name="shop", san=names)
        [entry] = parsed(table(f"san = {san}"))
        assert entry == TokenEntry(name="shop", sha256=bytes.fromhex(SHA256), san=names)

    def test_two_tables_of_a_name_are_refused(self):
        text = complaint(
            table('san = ["URI:urn:a", "DNS:a.example"]') + '[[token]]\nname = "other"\nsan = "DNS:A.example"\n'
        )
        assert text == "tokens = 't.toml': [[token]] shop and [[token]] other: both have the same san"

    def test_two_tables_without_a_secret_are_two(self):
        tables = [f'[[token]]\nname = "shop"\nsan = "DNS:{name}"\n' for name in ("a", "b")]
        assert [entry.san for entry in parsed("".join(tables))] == [("DNS:a",), ("DNS:b",)]


class TestFile:
    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o444, 0o400])
    def test_who_may_read_it_does_not_matter(self, tmp_path, mode):
        path = tmp_path / "t"
        path.write_text(ALL)
        path.chmod(mode)
        assert tokens.read(str(path)) == ALL.encode()

    @pytest.mark.parametrize("mode", [0o666, 0o620, 0o602, 0o664])
    @pytest.mark.parametrize("through_a_link", [False, True])
    def test_one_that_others_may_write_to_is_refused(self, tmp_path, mode, through_a_link):
        path = tmp_path / "t"
        path.write_text(ALL)
        path.chmod(mode)
        if through_a_link:
            path = tmp_path / "link"
            path.symlink_to("t")
        with pytest.raises(SettingError, match=f"may be written to by others than its owner .mode {mode:04o}."):
            tokens.read(str(path))

    def test_what_is_no_file_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe", 0o600)
        for name, reason in (("pipe", "is no regular file"), (".", "is no regular file"), ("none", "No such file")):
            with pytest.raises(SettingError, match=reason):
                tokens.read(str(tmp_path / name))
        with pytest.raises(SettingError, match="cannot be read"):
            tokens.read("a\0b")

    def test_one_that_is_too_large_is_refused(self, tmp_path):
        path = tmp_path / "t"
        path.write_bytes(b"#" * MOST_FILE_BYTES)
        path.chmod(0o600)
        assert len(tokens.read(str(path))) == MOST_FILE_BYTES
        path.write_bytes(b"#" * (MOST_FILE_BYTES + 1))
        with pytest.raises(SettingError, match="is larger than 1048576 bytes"):
            tokens.read(str(path))


def new(*arguments: str) -> tuple[int, str]:
    """Exit code and output of `gatewayx token new`."""
    result = CliRunner().invoke(main, ["token", "new", *arguments], prog_name="gatewayx")
    return result.exit_code, result.output


class TestNew:
    def test_the_first_line_is_a_token_that_scanners_can_check(self):
        _, output = new("shop")
        token = output.splitlines()[0]
        assert re.fullmatch(r"gwx_[A-Za-z0-9_-]{43}[0-9a-f]{8}", token)
        assert int(token[-8:], 16) == zlib.crc32(token[:-8].encode())
        assert new("shop")[1].splitlines()[0] != token
        assert output.count(token) == 1

    def test_the_table_is_that_of_the_token_and_says_no_more_than_was_given(self):
        _, output = new("shop")
        token, _, text = output.partition("\n")
        assert tomllib.loads(text) == {
            "token": [{"name": "shop", "sha256": hashlib.sha256(token.encode()).hexdigest()}]
        }

    def test_everything_that_can_be_given(self):
        code, output = new(
            *("shop", "--function", 'a"\\\U0001f600', "--function", "b*", "--rate", "2.5/s:10", "--max-jobs", "3"),
            *("--highest-priority", "low", "--no-background", "--expires", "2027-01-31T12:00:00Z"),
        )
        assert code == 0
        [entry] = parsed(output.partition("\n")[2])
        assert entry == TokenEntry(
            name="shop",
            sha256=entry.sha256,
            functions=('a"\\\U0001f600', "b*"),
            rate=2.5,
            burst=10,
            max_jobs=3,
            highest_priority="low",
            background=False,
            expires_s=datetime.datetime(2027, 1, 31, 12, tzinfo=datetime.timezone.utc).timestamp(),
        )

    def test_a_token_for_certificates_has_no_secret(self):
        code, output = new("shop", "--san", "DNS:Shop.example", "--san", "URI:urn:a", "--max-jobs", "3")
        assert code == 0
        assert tomllib.loads(output) == {
            "token": [{"name": "shop", "san": ["DNS:Shop.example", "URI:urn:a"], "max_jobs": 3}]
        }

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("a b",),
            ("shop", "--san", "shop.example"),
            ("gwx_a",),
            ("shop", "--rate", "1"),
            ("shop", "--rate", "0/s"),
            ("shop", "--rate", "1/s:0"),
            ("shop", "--rate", "1/m"),
            ("shop", "--max-jobs", "0"),
            ("shop", "--function", "a*b"),
            ("shop", "--highest-priority", "urgent"),
            ("shop", "--expires", "tomorrow"),
            ("shop", "--expires", "2027-02-30"),
            ("shop", "--expires", "2027-01-31T12:00:00"),
        ],
    )
    def test_what_the_file_would_not_take_is_wrong_use(self, arguments):
        code, output = new(*arguments)
        assert code == 2
        assert "gwx_A" not in output
        assert "[[token]]\n" not in output
