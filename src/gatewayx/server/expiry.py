"""What the log tells of certificates that end soon, or have ended."""

from __future__ import annotations

import datetime
import logging
import time

from gatewayx.server.tls_files import Term, TlsFiles

logger = logging.getLogger("gatewayx")

DAY_S = 86400.0
# From so many days before its end on a certificate is told of once a day.
EARLY_DAYS = 30


def moment(epoch_s: float) -> str:
    """A time as messages tell it."""
    return datetime.datetime.fromtimestamp(epoch_s, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def tell(term: Term, now_s: float) -> None:
    """Have the log tell if the certificate is not good at this time, or not for long; now_s: since the epoch."""
    # The limit on lines of one kind is for each certificate.
    about = {"about": term.path}
    begins, ends = moment(term.not_before_s), moment(term.not_after_s)
    if now_s < term.not_before_s:
        logger.error("%s is not good yet: not before %s", term, begins, extra=about)
    elif now_s >= term.not_after_s:
        logger.error("%s has expired: it was good until %s", term, ends, extra=about)
    elif term.not_after_s - now_s < EARLY_DAYS * DAY_S:
        days = int((term.not_after_s - now_s) / DAY_S)
        logger.warning("%s expires in %d days: it is good until %s", term, days, ends, extra=about)


class Expiry:
    """Tells of certificates when they are read, once a day, and when one expires."""

    def __init__(self) -> None:
        self._terms: list[Term] = []
        # In seconds since the epoch.
        self._due_s = 0.0

    def read(self, files: TlsFiles) -> None:
        """The certificates are those of these files from now on."""
        self._terms = [term for _, term in files.terms()]
        self._tell(time.time())

    def look(self) -> None:
        """Tell what is due."""
        now_s = time.time()
        # A clock that was set back must not silence it.
        if now_s >= self._due_s or self._due_s - now_s > DAY_S:
            self._tell(now_s)

    def _tell(self, now_s: float) -> None:
        for term in self._terms:
            tell(term, now_s)
        ends_s = [term.not_after_s for term in self._terms if term.not_after_s > now_s]
        self._due_s = min([now_s + DAY_S, *ends_s])
