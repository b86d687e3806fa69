"""What the log tells of certificates that end soon, or have ended."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gatewayx.cli import main
from gatewayx.config.settings import Settings
from gatewayx.server import expiry, tls_files
from gatewayx.server.expiry import DAY_S, Expiry
from gatewayx.server.tls_files import TlsFiles, read_clients
from support.tls import Authority

NOW_S = 1_800_000_000.0


class Clock:
    """What time it is."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def time(self) -> float:
        """As that of the module."""
        return self.now_s


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """Stands at NOW_S."""
    clock = Clock()
    monkeypatch.setattr(expiry, "time", clock)
    return clock


def files(folder, *names: str, begins_s: float = NOW_S - 100 * DAY_S, ends_s: float) -> TlsFiles:
    """A certificate for these names that is good from then to then."""
    times = [datetime.datetime.fromtimestamp(at_s, datetime.timezone.utc) for at_s in (begins_s, ends_s)]
    certificate, key = Authority(folder).pair(*names, begins=times[0], ends=times[1])
    path = folder / "gw.pem"
    path.write_bytes(certificate + key)
    return TlsFiles(clients=read_clients(Settings(tls_certificate=(str(path),))))


@pytest.mark.parametrize(
    ("begins_s", "ends_s", "level", "told"),
    [
        (-DAY_S, 31 * DAY_S, None, None),
        (-DAY_S, 30 * DAY_S + 1, None, None),
        (-DAY_S, 30 * DAY_S - 1, "WARNING", "expires in 29 days: it is good until 2027-02-14 07:59:59 UTC"),
        (-DAY_S, DAY_S / 2, "WARNING", "expires in 0 days: it is good until 2027-01-15 20:00:00 UTC"),
        (-DAY_S, 0, "ERROR", "has expired: it was good until 2027-01-15 08:00:00 UTC"),
        (DAY_S, 2 * DAY_S, "ERROR", "is not good yet: not before 2027-01-16 08:00:00 UTC"),
    ],
)
def test_it_is_told_when_it_is_read(tmp_path, clock, caplog, begins_s, ends_s, level, told):
    caplog.set_level(logging.INFO, "gatewayx")
    read = files(tmp_path, "a.test", "10.0.0.1", begins_s=NOW_S + begins_s, ends_s=NOW_S + ends_s)
    Expiry().read(read)
    if told is None:
        assert not caplog.records
    else:
        [record] = caplog.records
        assert record.levelname == level
        assert record.message == f"tls-certificate = '{tmp_path / 'gw.pem'}' (for a.test, 10.0.0.1) {told}"


def test_it_is_told_again_once_a_day_and_when_it_expires(tmp_path, clock, caplog):
    watching = Expiry()
    watching.read(files(tmp_path, "a.test", ends_s=NOW_S + 31.5 * DAY_S))

    def told_after(days: float) -> list[str]:
        caplog.clear()
        clock.now_s = NOW_S + days * DAY_S
        watching.look()
        watching.look()
        return [record.message.partition(") ")[2].partition(":")[0] for record in caplog.records]

    assert told_after(0.9) == []
    assert told_after(1) == []
    assert told_after(2) == ["expires in 29 days"]
    assert told_after(2.9) == []
    assert told_after(3) == ["expires in 28 days"]
    assert told_after(31) == ["expires in 0 days"]
    assert told_after(31.4) == []
    assert told_after(31.5) == ["has expired"]
    assert told_after(32.4) == []
    assert told_after(32.5) == ["has expired"]
    # The clock is set back.
    assert told_after(5) == ["expires in 26 days"]


def authorities(folder: Path, *ends_s: float) -> TlsFiles:
    """A certificate that is good, and a file of authorities of clients that end then."""
    good = files(folder, "a.test", ends_s=NOW_S + 1000 * DAY_S)
    key = ec.generate_private_key(ec.SECP256R1())
    made = []
    for number, at_s in enumerate(ends_s):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Root {number}\n")])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        times = [datetime.datetime.fromtimestamp(when_s, datetime.timezone.utc) for when_s in (1e9, at_s)]
        builder = builder.not_valid_before(times[0]).not_valid_after(times[1]).serial_number(number + 1)
        built = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        made.append(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    path = folder / "ca.pem"
    path.write_bytes(b"of ours\n".join(made))
    shown = good.clients.pairs[0].certificate.path
    return TlsFiles(clients=read_clients(Settings(tls_certificate=(shown,), tls_client_ca=str(path))))


@pytest.mark.parametrize(
    ("ends_s", "told"),
    [
        ([40 * DAY_S], None),
        ([9 * DAY_S + 1], r"its authority 'CN=Root 0\n') expires in 9 days"),
        ([40 * DAY_S, 9 * DAY_S + 1], r"one of its authorities, 'CN=Root 1\n') expires in 9 days"),
        ([-DAY_S, 40 * DAY_S], None),
        ([-2 * DAY_S, -DAY_S], r"one of its authorities, 'CN=Root 1\n') has expired"),
    ],
)
def test_of_authorities_the_one_that_ends_next_is_told(tmp_path, clock, caplog, monkeypatch, ends_s, told):
    monkeypatch.setattr(tls_files, "time", clock)
    read = authorities(tmp_path, *(NOW_S + each_s for each_s in ends_s))
    Expiry().read(read)
    lines = [record.message for record in caplog.records]
    if told is None:
        assert lines == []
    else:
        [line] = lines
        assert line.startswith(f"tls-client-ca = '{tmp_path / 'ca.pem'}' ({told}")
    assert [purpose for purpose, _ in read.terms()] == ["clients", "client-authorities"]


def test_check_tells_it_too(tmp_path, clock, caplog):
    files(tmp_path, "a.test", ends_s=NOW_S + 3 * DAY_S)
    found = CliRunner().invoke(main, ["check", "--tls-certificate", str(tmp_path / "gw.pem")])
    assert found.exit_code == 0, found.output
    assert "(for a.test) expires in 3 days" in caplog.text


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "no name"),
        (["a.test", "b.test", "10.0.0.1"], "a.test, b.test, 10.0.0.1"),
        (["a.test", "b.test", "c.test", "d.test", "10.0.0.1"], "a.test, b.test, c.test and 2 more"),
    ],
)
def test_it_is_told_by_its_names(tmp_path, names, told):
    if names:
        [pair] = files(tmp_path, *names, ends_s=NOW_S + 1).clients.pairs
    else:
        authority = Authority(tmp_path)
        path = tmp_path / "none.pem"
        certificate, key = authority.pair(common_name="common.test")
        path.write_bytes(certificate + key)
        [pair] = read_clients(Settings(tls_certificate=(str(path),))).pairs
    assert pair.subjects == told
