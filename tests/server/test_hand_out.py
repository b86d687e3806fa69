"""What the master hands out: what becomes of it where nothing more can be opened."""

from __future__ import annotations

import errno
import logging

import pytest

from gatewayx.config.settings import Settings
from gatewayx.net import pem
from gatewayx.server.hand_out import HandOut
from gatewayx.server.process import places_for
from gatewayx.server.watched_files import SETTLE_S
from support.tls import Authority


@pytest.fixture
def settings(tmp_path) -> Settings:
    """Of a gateway whose clients speak TLS."""
    for name, content in zip(("c.pem", "k.pem"), Authority(tmp_path).pair("first.test"), strict=True):
        (tmp_path / name).write_bytes(content)
    return Settings(tls_certificate=(str(tmp_path / "c.pem"),), tls_key=(str(tmp_path / "k.pem"),))


def names(handed: HandOut) -> tuple[str, ...]:
    """In the certificate that is handed out."""
    return handed.tls.files.clients.pairs[0].names


@pytest.mark.parametrize("asked", [False, True])
def test_certificates_for_which_the_master_has_no_room_are_taken_at_the_next_look(
    asked, settings, tmp_path, monkeypatch, caplog
):
    handed = HandOut(settings, lambda: settings, places_for(settings, 1))
    assert names(handed) == ("first.test",)
    for name, content in zip(("c.pem", "k.pem"), Authority(tmp_path).pair("second.test"), strict=True):
        (tmp_path / name).write_bytes(content)
    change = handed.tls.change

    def change_without_room(files):
        def none_left(*_how):
            raise OSError(errno.ENFILE, "Too many open files in system")

        with monkeypatch.context() as without:
            without.setattr(pem.os, "memfd_create", none_left)
            change(files)

    with monkeypatch.context() as without:
        without.setattr(handed.tls, "change", change_without_room)
        if asked:
            assert handed.reload(())
        else:
            handed.look(100.0, ())
            handed.look(100.0 + SETTLE_S, ())
        assert names(handed) == ("first.test",)
        assert "the master has no room yet for new certificates: no file in memory" in caplog.text
    caplog.clear()
    caplog.set_level(logging.INFO, "gatewayx")
    handed.look(101.0, ())
    assert names(handed) == ("second.test",)
    assert handed.hand_out(())
    assert "all worker processes have the certificates" in caplog.text or asked
