"""PEM files of TLS: read whole, and given to OpenSSL as they were read.

OpenSSL takes most of them by path alone. What was read is given to it by the path of a file in memory, so that all
processes use the same contents whatever becomes of the file meanwhile, and a key touches no disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import ssl
import stat
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import msgspec

from gatewayx.errors import StartError

if TYPE_CHECKING:
    from cryptography import x509

# Bound of a file, which is read whole; the authorities of a whole system take a quarter of it.
MOST_FILE_BYTES = 1024 * 1024

Loaded = TypeVar("Loaded")

_CERTIFICATES = (b"-----BEGIN CERTIFICATE-----", b"-----BEGIN X509 CERTIFICATE-----")
_TRUSTED = b"-----BEGIN TRUSTED CERTIFICATE-----"
_KEY = b"PRIVATE KEY-----"
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# Where a part of a file begins, whole or cut off.
_BEGIN = re.compile(rb"(?=-----BEGIN )")
# So many certificates of a file are tried with a key that is not the first one's.
_MOST_TRIED = 8
# What OpenSSL says of a pair that is none; the others where the keys are of two kinds.
_OTHER_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
# What it says of certificates that it can read and does not use, in words.
_NOT_USED = {
    "EE_KEY_TOO_SMALL": "its key is too short",
    "CA_KEY_TOO_SMALL": "the key of an authority in it is too short",
    "INVALID_CERTIFICATE": "its certificate has a key that cannot be read",
    "CA_MD_TOO_WEAK": "a signature in it is of a kind that can be forged",
    "EE_MD_TOO_WEAK": "a signature in it is of a kind that can be forged",
}
# Of PEM that has no end, or ends elsewhere; for most of it OpenSSL names no more than its library.
_DAMAGED = ("BAD_END_LINE", "BAD_BASE64_DECODE", "NO_START_LINE", "NO_CERTIFICATE_OR_CRL_FOUND")
# A key with a passphrase, as PKCS #8 and as RFC 1421 have it.
_ENCRYPTED = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")


class MissingFileError(StartError):
    """There is no such file."""


class NoRoomError(StartError):
    """No descriptor or no memory is left for the file; that may be over in a moment."""


class OtherKeyError(StartError):
    """The key is not the certificate's."""


class Pem(msgspec.Struct, frozen=True):
    """A file as it was read."""

    # The key of the setting that names it, and its path there.
    setting: str
    path: str
    content: bytes

    def __str__(self) -> str:
        """As messages name it."""
        return named(self.setting, self.path)


def named(setting: str, path: str) -> str:
    """A file as messages name it."""
    return f"{setting} = {path!a}"


def read(setting: str, path: str) -> Pem:
    """Read the file that the path leads to. Raises StartError."""
    try:
        # A pipe would be waited at.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _unusable(named(setting, path), "it is no regular file")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MOST_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise _unusable(named(setting, path), _reason(error), MissingFileError) from error
    except OSError as error:
        raise _unusable(named(setting, path), _reason(error), _kind(error)) from error
    except ValueError as error:
        raise _unusable(named(setting, path), _reason(error)) from error
    if len(content) > MOST_FILE_BYTES:
        raise _unusable(named(setting, path), f"it is larger than {MOST_FILE_BYTES} bytes")
    return Pem(setting, path, content)


def load_pair(context: ssl.SSLContext, certificate: Pem, key: Pem | None) -> None:
    """Have the context show the certificate, with those behind it in its file. Raises StartError.

    key: the certificate's; None if it is in the same file.
    """
    of_key = certificate if key is None else key
    if not any(begin in certificate.content for begin in _CERTIFICATES):
        raise _unusable(str(certificate), _without(certificate, "certificate"))
    if _KEY not in of_key.content:
        reason = _without(of_key, "key")
        if key is None:
            reason += f", and {certificate.setting.replace('certificate', 'key')} names no other file"
        raise _unusable(str(of_key), reason)
    if any(sign in of_key.content for sign in _ENCRYPTED):
        raise _unusable(str(of_key), "its key is encrypted: nobody is there to be asked for the passphrase")
    with _in_memory(certificate.content) as path, _in_memory(of_key.content) as key_path:
        try:
            # An empty password instead of a question on the terminal.
            context.load_cert_chain(path, key_path, password="")
        except OSError as error:
            if isinstance(error, ssl.SSLError) and error.reason in _OTHER_KEY:
                pair = str(certificate) if key is None else f"{certificate} with {key}"
                raise _unusable(pair, _other_key(certificate, key_path), OtherKeyError) from error
            at_fault = certificate if _has_faulty_certificates(certificate, error) else of_key
            raise _unusable(str(at_fault), _reason(error), _kind(error)) from error


def load_authorities(load: Callable[[str], Loaded], authorities: Pem) -> Loaded:
    """What `load` makes of the path of a file with these authorities. Raises StartError."""
    if not any(begin in authorities.content for begin in (*_CERTIFICATES, _TRUSTED)):
        raise _unusable(str(authorities), _without(authorities, "certificate"))
    with _in_memory(authorities.content) as path:
        try:
            return load(path)
        except OSError as error:
            raise _unusable(str(authorities), _reason(error), _kind(error)) from error


def decoded(content: bytes) -> x509.Certificate:
    """The first certificate of PEM. Raises whatever the package does that decodes it."""
    from cryptography import x509

    with warnings.catch_warnings():
        # It warns of what no authority should issue, such as a serial number of 0, and would do so in the log.
        warnings.simplefilter("ignore")
        return x509.load_pem_x509_certificate(content)


def _without(file: Pem, wanted: str) -> str:
    """Why a file is of no use that has nothing of this in PEM."""
    if not file.content.strip():
        return "it is empty"
    # A sequence, with a length that takes more than a byte (X.690 8.1.3.5), is how every certificate and key begins.
    if file.content[0] == 0x30 and file.content[1:2] > b"\x80":
        return f"it has no {wanted} in PEM: it seems to be DER"
    has_other = any(begin in file.content for begin in _CERTIFICATES) if wanted == "key" else _KEY in file.content
    return f"it has no {wanted} in PEM" + (
        f", but a {'certificate' if wanted == 'key' else 'key'}" if has_other else ""
    )


def _other_key(certificate: Pem, key_path: str) -> str:
    """What is wrong with a certificate and a key that are no pair."""
    for part in certificates(certificate.content)[1:_MOST_TRIED]:
        with _in_memory(part) as path, contextlib.suppress(OSError):
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, key_path, password="")
            return "the key is that of a later certificate in the file, which must be the first one"
    return "the key is not that of the certificate"


def _has_faulty_certificates(certificate: Pem, error: OSError) -> bool:
    """Whether it is for this file that a pair could not be loaded, and not for that of the key."""
    if not isinstance(error, ssl.SSLError) or error.reason in _NOT_USED:
        return True
    with _in_memory(b"".join(certificates(certificate.content))) as path:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except OSError:
            return True
    return False


def certificates(content: bytes) -> list[bytes]:
    """The parts of a file that are certificates, or begin as such."""
    return [part for part in _BEGIN.split(content) if part.startswith(_CERTIFICATES)]


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    try:
        descriptor = os.memfd_create("gatewayx-pem", os.MFD_CLOEXEC)
    except OSError as error:
        raise NoRoomError(f"no file in memory: {error.strerror}") from error
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _unusable(named: str, reason: str, kind: type[StartError] = StartError) -> StartError:
    return kind(f"{named} cannot be used: {reason}")


def _kind(error: OSError) -> type[StartError]:
    # The errno of an SSLError is OpenSSL's.
    return NoRoomError if error.errno in _NO_ROOM and not isinstance(error, ssl.SSLError) else StartError


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        if "PEM lib" in str(error) or error.reason in _DAMAGED:
            return "what it has in PEM is cut off or damaged"
        if error.reason in _NOT_USED:
            return f"{_NOT_USED[error.reason]} (OpenSSL says {error.reason})"
        # The rest of its text names a line of Python's source.
        return f"OpenSSL says {error.reason}"
    told: str = getattr(error, "strerror", None) or str(error)
    return ascii(told)[1:-1]
