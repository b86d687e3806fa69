"""Certificates that are renewed while the gateway runs: their files, and what may take the place of what."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from gatewayx.config.settings import Settings
from gatewayx.errors import StartError
from gatewayx.net.pem import Pem
from gatewayx.server.expiry import moment
from gatewayx.server.tls_files import (
    ClientFiles,
    JobServerFiles,
    Pair,
    client_paths,
    job_server_paths,
    judged_clients,
    judged_job_servers,
    read_all,
)
from gatewayx.server.watched_files import NotYetError, Purpose

Contents = Mapping[tuple[str, str], Pem]


Files = TypeVar("Files", ClientFiles, JobServerFiles)


def _renewing(
    judged: Callable[[Settings, Contents], Files],
) -> Callable[[Settings, Contents, Files | None], Files]:
    """What judges files that were read, with a look at what they held before."""

    def renewed(settings: Settings, read: Contents, before: Files | None) -> Files:
        held = judged(settings, read)
        _compare_times(held.pairs, () if before is None else before.pairs)
        return held

    return renewed


def _compare_times(pairs: Sequence[Pair], before: Sequence[Pair]) -> None:
    """Refuse a certificate that is not good now in the place of one that is."""
    epoch_s = time.time()
    good = {old.certificate.path for old in before if old.is_good(epoch_s)}
    for pair in pairs:
        if pair.certificate.path not in good:
            continue
        if epoch_s < pair.not_before_s:
            raise NotYetError(
                f"{pair.certificate} is not good before {moment(pair.not_before_s)}", pair.not_before_s - epoch_s
            )
        if not pair.is_good(epoch_s):
            raise StartError(f"{pair.certificate} has expired on {moment(pair.not_after_s)}")


FOR_CLIENTS = Purpose("the certificates for clients", client_paths, read_all, _renewing(judged_clients))
FOR_JOB_SERVERS = Purpose("the certificates for job servers", job_server_paths, read_all, _renewing(judged_job_servers))
