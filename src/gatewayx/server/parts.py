"""What the settings mean for each part of a process that they can change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gatewayx.gateway.origins import Origins

if TYPE_CHECKING:
    from gatewayx.config.settings import Settings


def for_admission(settings: Settings) -> dict[str, Any]:
    """What Admission is made with and changed to."""
    return {
        "functions": [name.encode() for name in settings.function],
        "max_jobs": settings.max_jobs,
        "max_function_jobs": [(bound.name.encode(), bound.jobs) for bound in settings.max_function_jobs],
        "max_queued": [(bound.name.encode(), bound.jobs) for bound in settings.max_queued],
        "require_worker": settings.require_worker,
    }


def for_gateway(settings: Settings) -> dict[str, Any]:
    """What the Gateway is made with and changed to."""
    return {
        "content_type": settings.content_type.encode("latin-1"),
        "job_timeout_s": settings.job_timeout_s,
        "max_function_bytes": settings.max_function_bytes,
        "max_batch": settings.max_batch,
        "max_pipelined": settings.max_pipelined,
        "refuse_client_unique": settings.refuse_client_unique,
        "plugin_compat": settings.plugin_compat,
    }


def for_kept(settings: Settings) -> dict[str, Any]:
    """What KeptJobs are made with and changed to."""
    return {
        "timeout_s": settings.kept_timeout_s,
        "ttl_s": settings.kept_ttl_s,
        "max_jobs": settings.max_kept_jobs,
    }


def for_keys(settings: Settings) -> dict[str, Any]:
    """What Keys are made with and changed to."""
    return {"ttl_s": settings.kept_ttl_s, "max_keys": settings.max_keys}


def origins(settings: Settings) -> Origins:
    """The origins whose pages may ask."""
    names = tuple(origin.encode("ascii") for origin in settings.origin)
    return Origins(names, tuple(host.encode("ascii") for host in settings.host))


def answers_half_closed(settings: Settings) -> bool:
    """Whether a client is answered that has sent its last byte."""
    return settings.half_closed == "answer"


def servers_by_function(settings: Settings) -> list[tuple[bytes, list[int]]]:
    """Which of the configured job servers each function is mapped to."""
    numbers: dict[bytes, list[int]] = {}
    for entry in settings.function_server:
        numbers.setdefault(entry.name.encode(), []).append(settings.server.index(entry.server))
    return list(numbers.items())
