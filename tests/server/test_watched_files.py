"""The files of TLS as the master sees them change: what is taken, when, and what is told."""

from __future__ import annotations

import datetime
import errno
import itertools
import logging
import mmap
import os
from pathlib import Path

import pytest

from gatewayx.config.settings import Settings
from gatewayx.net import pem
from gatewayx.server import renewals
from gatewayx.server.board import Board, Reload, board_bytes
from gatewayx.server.renewals import FOR_CLIENTS
from gatewayx.server.tls_files import read_clients
from gatewayx.server.watched_files import PATIENCE_S, SETTLE_S, WatchedFiles
from support.tls import Authority

DAY = datetime.timedelta(days=1)
MOMENTS = itertools.count(1)


@pytest.fixture
def record():
    """Where it is told what became of the files."""
    return Board(mmap.mmap(-1, board_bytes(1)), 1, 0).client_certificates


def put(path: Path, content: bytes) -> None:
    """Write a file, whose time is none that it had before: that of the file system stands still for milliseconds."""
    path.write_bytes(content)
    moment = next(MOMENTS)
    os.utime(path, ns=(moment, moment))


class Watched:
    """A certificate, its key and an authority of clients, and whoever watches them, looking once a second."""

    def __init__(self, folder: Path, record) -> None:
        self.folder = folder
        self.record = record
        self.authority = Authority(folder)
        self.certificate, self.key, self.clients = (folder / name for name in ("c.pem", "k.pem", "clients.pem"))
        self.write(*self.authority.pair("first.test"))
        self.clients.write_bytes(self.authority.file.read_bytes())
        settings = Settings(
            tls_certificate=(str(self.certificate),), tls_key=(str(self.key),), tls_client_ca=str(self.clients)
        )
        self.files = WatchedFiles(FOR_CLIENTS, record, settings, read_clients(settings))
        self.now_s = 100.0
        # The first look makes sure that nothing has changed since they were read.
        assert not self.look()
        assert not self.settle()

    def write(self, certificate: bytes, key: bytes) -> None:
        """Write both."""
        put(self.certificate, certificate)
        put(self.key, key)

    def names(self) -> tuple[str, ...]:
        """In the certificate that is good."""
        return self.files.held.pairs[0].names

    def look(self, after_s: float = 1.0) -> bool:
        """What a look so much later tells."""
        self.now_s += after_s
        return self.files.look(self.now_s)

    def settle(self) -> bool:
        """What a look tells that comes as soon as it is to."""
        pause_s = self.files.pause_s(self.now_s)
        assert pause_s == pytest.approx(SETTLE_S)
        return self.look(pause_s)

    def change(self) -> bool:
        """What a look and the one after it tell."""
        assert not self.look()
        return self.settle()


@pytest.fixture
def watched(tmp_path, record) -> Watched:
    """A pair that holds."""
    return Watched(tmp_path, record)


def test_what_does_not_change_is_not_read_again(watched, monkeypatch):
    monkeypatch.setattr(pem, "read", None)
    assert not any(watched.look() for _ in range(3))
    assert watched.files.pause_s(watched.now_s) == float("inf")


def test_a_change_between_the_reading_and_the_first_look_is_seen(tmp_path, record):
    watched = Watched(tmp_path, record)
    watched.write(*watched.authority.pair("second.test"))
    watched.files.take(watched.files._settings, watched.files.held)
    assert watched.change()
    assert watched.names() == ("second.test",)


@pytest.mark.parametrize("how", ["in place", "by rename", "by a link", "the key's file too"])
def test_a_change_is_taken_after_two_equal_readings(watched, how, caplog):
    caplog.set_level(logging.INFO, "gatewayx")
    certificate, key = watched.authority.pair("second.test")
    if how == "in place":
        watched.write(certificate, key)
    elif how == "by rename":
        for path, content in ((watched.certificate, certificate), (watched.key, key)):
            new = path.with_suffix(".new")
            new.write_bytes(content)
            new.replace(path)
    else:
        # As a Kubernetes secret is mounted: a folder by a link, and each file by a link through that.
        folder = watched.folder / "second"
        folder.mkdir()
        (folder / "c.pem").write_bytes(certificate)
        (folder / "k.pem").write_bytes(key)
        for path in (watched.certificate, watched.key):
            path.unlink()
            path.symlink_to(folder / path.name)
    assert not watched.look()
    assert watched.names() == ("first.test",)
    # Too early.
    assert not watched.files.look(watched.now_s)
    assert watched.settle()
    assert watched.names() == ("second.test",)
    assert not watched.look()
    assert watched.record.result is Reload.SUCCESSFUL
    assert [record.message for record in caplog.records] == ["the certificates for clients have changed"]


def test_a_folder_that_is_swapped_by_its_link_is_one_change(tmp_path, record):
    folders = [tmp_path / name for name in ("one", "two")]
    authority = Authority(tmp_path)
    for folder in folders:
        folder.mkdir()
        certificate, key = authority.pair(f"{folder.name}.test")
        (folder / "tls.crt").write_bytes(certificate)
        (folder / "tls.key").write_bytes(key)
    data = tmp_path / "data"
    data.symlink_to(folders[0])
    settings = Settings(tls_certificate=(str(data / "tls.crt"),), tls_key=(str(data / "tls.key"),))
    files = WatchedFiles(FOR_CLIENTS, record, settings, read_clients(settings))
    assert not files.look(1)
    assert not files.look(2)
    (tmp_path / "next").symlink_to(folders[1])
    (tmp_path / "next").replace(data)
    assert not files.look(3)
    assert files.look(4)
    assert files.held.pairs[0].names == ("two.test",)


def test_one_that_is_being_written_is_taken_once_it_is_whole(watched):
    certificate, key = watched.authority.pair("second.test")
    put(watched.key, key)
    with watched.certificate.open("wb") as file:
        for at in range(0, len(certificate), 200):
            file.write(certificate[at : at + 200])
            file.flush()
            assert not watched.look()
            assert watched.names() == ("first.test",)
    assert watched.look()
    assert watched.names() == ("second.test",)
    assert watched.record.result is Reload.SUCCESSFUL


@pytest.mark.parametrize("first", ["certificate", "key"])
def test_a_certificate_whose_key_comes_later_is_no_fault(watched, first, caplog):
    certificate, key = watched.authority.pair("second.test")
    order = [(watched.certificate, certificate), (watched.key, key)]
    if first == "key":
        order.reverse()
    put(order[0][0], order[0][1])
    assert not watched.change()
    assert not watched.look(PATIENCE_S - 1)
    assert watched.record.result is Reload.SUCCESSFUL
    put(order[1][0], order[1][1])
    assert watched.change()
    assert watched.names() == ("second.test",)
    assert not caplog.records


@pytest.mark.parametrize("kind", ["other key", "missing"])
def test_what_stays_so_is_a_fault_that_is_told_once(watched, kind, caplog):
    certificate, _ = watched.authority.pair("second.test")
    if kind == "missing":
        watched.certificate.unlink()
    else:
        put(watched.certificate, certificate)
    assert not watched.change()
    assert not caplog.records
    assert watched.files.pause_s(watched.now_s) == pytest.approx(PATIENCE_S)
    assert not watched.look(PATIENCE_S)
    assert not watched.settle()
    assert watched.record.result is Reload.FAILED
    assert ("No such file" if kind == "missing" else "the key is not that of") in watched.record.detail
    assert len(caplog.records) == 1
    assert "the certificates for clients stay as they were: tls-certificate = " in caplog.text
    assert watched.names() == ("first.test",)
    for _ in range(5):
        assert not watched.look()
    # It is touched, and still the same.
    put(watched.clients, watched.clients.read_bytes())
    assert not watched.change()
    assert len(caplog.records) == 1
    watched.write(*watched.authority.pair("third.test"))
    assert watched.change()
    assert watched.record.result is Reload.SUCCESSFUL
    assert watched.record.detail == ""


@pytest.mark.parametrize("which", ["certificate", "key", "clients"])
def test_nonsense_is_told_at_once_and_what_was_there_goes_on(watched, which, caplog):
    path = getattr(watched, which)
    good = path.read_bytes()
    put(path, b"nonsense")
    assert not watched.change()
    assert watched.record.result is Reload.FAILED
    assert "in PEM" in watched.record.detail
    assert len(caplog.records) == 1
    assert watched.names() == ("first.test",)
    put(path, good)
    with caplog.at_level(logging.INFO):
        assert not watched.change()
        # Nothing more is told of it.
        put(path, good)
        assert not watched.change()
    assert watched.record.result is Reload.SUCCESSFUL
    assert caplog.messages[1:] == ["the certificates for clients can be read again, and are what they were"]


@pytest.mark.parametrize(
    ("call", "number"), [("open", errno.ENFILE), ("memfd_create", errno.ENFILE), ("open", errno.EIO)]
)
def test_files_that_cannot_be_read_for_a_while_are_read_again(watched, call, number, monkeypatch):
    def none_left(*_how):
        raise OSError(number, os.strerror(number))

    watched.write(*watched.authority.pair("second.test"))
    with monkeypatch.context() as without:
        without.setattr(pem.os, call, none_left)
        assert not watched.change()
        assert watched.record.result is Reload.FAILED
    pause_s = watched.files.pause_s(watched.now_s)
    assert pause_s == pytest.approx(PATIENCE_S)
    assert not watched.look(pause_s)
    assert watched.settle()
    assert watched.names() == ("second.test",)
    assert watched.record.result is Reload.SUCCESSFUL


def test_those_that_were_read_with_settings_are_told_if_they_are_others(watched, caplog):
    caplog.set_level(logging.INFO, "gatewayx")
    settings = watched.files._settings
    watched.files.take(settings, read_clients(settings))
    assert not caplog.records
    watched.write(*watched.authority.pair("second.test"))
    watched.files.take(settings, read_clients(settings))
    assert not watched.change()
    assert caplog.messages == ["the certificates for clients have changed"]


def test_files_that_hold_are_told_so_after_settings_that_do_not(watched):
    watched.files.refuse("no file in memory")
    assert watched.record.result is Reload.FAILED
    assert watched.files.pause_s(watched.now_s) == 0
    assert not watched.change()
    assert watched.record.result is Reload.SUCCESSFUL
    assert watched.files.pause_s(watched.now_s) == float("inf")


def test_what_does_not_hold_is_told_once_by_settings_and_by_a_look(watched, caplog):
    put(watched.certificate, b"")
    assert not watched.change()
    watched.files.refuse(watched.record.detail)
    assert not watched.change()
    assert watched.record.result is Reload.FAILED
    assert len(caplog.records) == 1


def test_after_settings_that_do_not_hold_nothing_is_watched_without_files(record):
    files = WatchedFiles(FOR_CLIENTS, record, Settings(), None)
    files.refuse("no such file")
    assert not files.look(1.0)
    assert files.pause_s(1.0) == float("inf")


def test_other_authorities_are_a_change(watched, tmp_path):
    other = Authority(tmp_path, "other")
    put(watched.clients, other.file.read_bytes())
    assert watched.change()
    assert watched.files.held.authorities.content == other.file.read_bytes()


def test_one_that_has_expired_does_not_take_the_place_of_a_good_one(watched):
    now = datetime.datetime.now(datetime.timezone.utc)
    watched.write(*watched.authority.pair("second.test", begins=now - 2 * DAY, ends=now - DAY))
    assert not watched.change()
    assert watched.record.result is Reload.FAILED
    assert "has expired on" in watched.record.detail
    assert watched.names() == ("first.test",)


def test_one_that_is_not_good_yet_is_taken_when_it_is(watched, monkeypatch):
    now = datetime.datetime.now(datetime.timezone.utc)
    watched.write(*watched.authority.pair("second.test", begins=now + DAY, ends=now + 2 * DAY))
    assert not watched.change()
    assert watched.record.result is Reload.FAILED
    assert "is not good before" in watched.record.detail
    pause_s = watched.files.pause_s(watched.now_s)
    assert pause_s == pytest.approx(DAY.total_seconds(), abs=10)
    began_s = (now + DAY).timestamp() + 1
    monkeypatch.setattr(renewals.time, "time", lambda: began_s)
    assert not watched.look(pause_s)
    assert watched.settle()
    assert watched.names() == ("second.test",)


def test_bad_ones_take_the_place_of_bad_ones(tmp_path, record):
    now = datetime.datetime.now(datetime.timezone.utc)
    watched = Watched(tmp_path, record)
    for name in ("second.test", "third.test"):
        watched.write(*watched.authority.pair(name, begins=now - 2 * DAY, ends=now - DAY))
        watched.files.take(watched.files._settings, read_clients(watched.files._settings))
        assert not watched.change()
        assert watched.names() == (name,)
    watched.write(*watched.authority.pair("fourth.test", begins=now - 2 * DAY, ends=now - DAY))
    assert watched.change()
    assert watched.names() == ("fourth.test",)


def test_nothing_is_watched_without_files(record):
    files = WatchedFiles(FOR_CLIENTS, record, Settings(), None)
    assert not files.look(1)
    assert files.pause_s(1) == float("inf")
    assert record.result is Reload.NONE
