"""The file of tokens as the master sees it change: what is taken, when, and what is told."""

from __future__ import annotations

import errno
import logging
import mmap
import os
from pathlib import Path

import pytest

from gatewayx.config import tokens as tokens_config
from gatewayx.config.settings import Settings
from gatewayx.errors import StartError
from gatewayx.server import token_file
from gatewayx.server.board import Board, Reload, board_bytes
from gatewayx.server.token_file import FOR_TOKENS, read_tokens
from gatewayx.server.watched_files import PATIENCE_S, SETTLE_S, WatchedFiles
from support import tokens


@pytest.fixture
def board() -> Board:
    """Where it is told what became of the file."""
    return Board(mmap.mmap(-1, board_bytes(1)), 1, 0)


def watching(path: Path | None, board: Board) -> WatchedFiles:
    """Whoever watches this file."""
    settings = Settings(tokens=None if path is None else str(path))
    return WatchedFiles(FOR_TOKENS, board.tokens, settings, read_tokens(settings))


class Watched:
    """A file, and whoever watches it, looking once a second."""

    def __init__(self, folder: Path, board: Board) -> None:
        self.board = board
        self.written = tokens.TokenFile(folder / "t.toml")
        self.written.write(self.written.table("first"))
        self.settings = Settings(tokens=str(self.written.path))
        self.file = watching(self.written.path, board)
        self.now_s = 100.0
        # The first look makes sure that nothing has changed since it was read.
        assert not self.look()
        assert not self.settle()

    def names(self) -> list[str]:
        """Of the tokens that are good."""
        return [entry.name for entry in self.file.held]

    def look(self) -> bool:
        """What a look a second later tells."""
        self.now_s += 1.0
        return self.file.look(self.now_s)

    def settle(self) -> bool:
        """What a look tells that comes as soon as it is to."""
        pause_s = self.file.pause_s(self.now_s)
        assert 0 < pause_s <= SETTLE_S
        self.now_s += pause_s
        return self.file.look(self.now_s)


@pytest.fixture
def watched(tmp_path, board) -> Watched:
    """One with a token."""
    return Watched(tmp_path, board)


def test_what_does_not_change_is_not_read_again(watched, monkeypatch):
    monkeypatch.setattr(tokens_config, "read", None)
    assert not any(watched.look() for _ in range(3))
    assert watched.file.pause_s(watched.now_s) == float("inf")


def test_a_change_is_taken_after_two_equal_readings(watched):
    watched.written.write(watched.written.table("first"), watched.written.table("second"))
    assert not watched.look()
    assert watched.names() == ["first"]
    # Too early.
    assert not watched.file.look(watched.now_s)
    assert watched.settle()
    assert watched.names() == ["first", "second"]
    assert not watched.look()
    assert watched.board.tokens.result is Reload.SUCCESSFUL


def test_a_file_with_other_words_and_the_same_tokens_changes_nothing(watched, caplog):
    caplog.set_level(logging.INFO, "gatewayx")
    watched.written.path.write_text("# The same.\n" + watched.written.path.read_text())
    assert not watched.look()
    assert not watched.settle()
    assert not caplog.records


def test_a_file_that_is_being_written_is_taken_once_it_is_whole(watched):
    path = watched.written.path
    tables = [watched.written.table(name) for name in ("a", "b", "c")]
    # Written in place, a piece at a time, of which each but the last is a sound file.
    with path.open("w") as file:
        for number, table in enumerate(tables):
            file.write(table)
            file.flush()
            os.utime(path, ns=(number, number))
            assert not (watched.look() if number == 0 else watched.settle())
    assert watched.names() == ["first"]
    assert watched.settle()
    assert watched.names() == ["a", "b", "c"]


def test_a_change_within_one_tick_of_the_file_systems_clock_is_seen(watched):
    path = watched.written.path
    before = path.stat()
    path.write_text(watched.written.table("other"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert not watched.look()
    assert watched.settle()
    assert watched.names() == ["other"]


def test_a_link_that_moves_is_another_file(tmp_path, board):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written = tokens.TokenFile(tmp_path / name / "t.toml")
        written.write(written.table(name))
    # As in a Kubernetes secret: the file is a link into a folder that is a link.
    (tmp_path / "data").symlink_to("one")
    (tmp_path / "t.toml").symlink_to("data/t.toml")
    file = watching(tmp_path / "t.toml", board)
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").replace(tmp_path / "data")
    assert not file.look(1.0)
    assert file.look(2.0)
    assert [entry.name for entry in file.held] == ["two"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.chmod(0o666), "may be written to by others than its owner (mode 0666)"),
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: path.write_text("[[token]]\n"), "[[token]] number 1: name is missing"),
        (lambda path: path.write_text("[[token"), "is not TOML"),
    ],
)
def test_a_fault_changes_nothing_and_is_told_once_until_it_is_mended(watched, caplog, spoil, reason):
    path = watched.written.path
    good = path.read_text()
    spoil(path)
    with caplog.at_level(logging.INFO, "gatewayx"):
        told = [watched.look() for _ in range(5)]
        assert not any(told)
    assert watched.names() == ["first"]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert f"the tokens stay as they were: tokens = {str(path)!a}: " in record.getMessage()
    assert reason in record.getMessage()
    assert watched.board.tokens.result is Reload.FAILED
    assert reason in watched.board.tokens.detail
    watched.written.write(good)
    # The tokens are what they were.
    assert not any(watched.look() for _ in range(2))
    assert (watched.board.tokens.result, watched.board.tokens.detail) == (Reload.SUCCESSFUL, "")


def test_a_moment_without_the_file_is_no_fault(watched, caplog):
    watched.written.path.unlink()
    assert not watched.look()
    watched.written.write(watched.written.table("second"))
    assert not watched.settle()
    assert watched.settle()
    assert watched.names() == ["second"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_one_that_could_not_be_read_is_read_again(watched, monkeypatch, caplog):
    def none_left(*_how):
        raise OSError(errno.ENFILE, "Too many open files in system")

    watched.written.write(watched.written.table("second"))
    with monkeypatch.context() as without:
        without.setattr(tokens_config.os, "open", none_left)
        assert not any(watched.look() for _ in range(2 + 2 * int(PATIENCE_S)))
    assert watched.names() == ["first"]
    assert watched.board.tokens.result is Reload.FAILED
    assert len(caplog.records) == 1
    pause_s = watched.file.pause_s(watched.now_s)
    assert 0 < pause_s <= PATIENCE_S
    watched.now_s += pause_s
    assert not watched.file.look(watched.now_s)
    assert watched.settle()
    assert watched.names() == ["second"]
    assert watched.board.tokens.result is Reload.SUCCESSFUL
    assert watched.file.pause_s(watched.now_s) == float("inf")


def test_those_that_were_read_with_settings_are_told_if_they_are_others(watched, caplog):
    caplog.set_level(logging.INFO, "gatewayx")
    watched.file.take(watched.settings, read_tokens(watched.settings))
    assert not caplog.records
    watched.written.write()
    watched.file.take(watched.settings, read_tokens(watched.settings))
    assert not watched.look()
    assert caplog.messages == ["the tokens have changed: 0 of them"]


def test_one_that_holds_is_told_so_after_settings_that_do_not(watched, caplog):
    caplog.set_level(logging.INFO, "gatewayx")
    watched.file.refuse("no descriptor was left")
    assert watched.board.tokens.result is Reload.FAILED
    assert watched.file.pause_s(watched.now_s) == 0
    assert not watched.look()
    assert not watched.settle()
    assert watched.board.tokens.result is Reload.SUCCESSFUL
    assert watched.file.pause_s(watched.now_s) == float("inf")
    assert not caplog.records


def test_after_settings_that_do_not_hold_nothing_is_looked_at_without_a_file(board):
    file = watching(None, board)
    file.refuse("no such file")
    assert board.tokens.result is Reload.FAILED
    assert not file.look(1.0)
    assert file.pause_s(1.0) == float("inf")


def test_without_a_file_nothing_is_looked_at(board):
    file = watching(None, board)
    assert not file.look(1.0)
    assert file.held is None
    assert (board.tokens.result, board.tokens.successful_s) == (Reload.NONE, 0)


def test_at_the_start_a_fault_ends_it(tmp_path, board):
    with pytest.raises(StartError, match=r"tokens = .*none': cannot be read, No such file or directory"):
        watching(tmp_path / "none", board)


def test_one_that_is_never_the_same_twice_is_refused(tmp_path, monkeypatch):
    written = tokens.TokenFile(tmp_path / "t.toml")
    monkeypatch.setattr(token_file.time, "sleep", lambda _: written.write(written.table("other")))
    with pytest.raises(StartError, match="changes while it is read"):
        read_tokens(Settings(tokens=str(written.path)))
