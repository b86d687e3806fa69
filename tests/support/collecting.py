"""Processes that run the tests together collect from different files on.

What pytest makes of a test's module, whose assertions it rewrites, is kept for the next one that imports it, and takes
ten times as long as importing that. All would begin with the same module, and each would make all of them.
"""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Have this process begin elsewhere, if all tests are to be collected."""
    told: dict[str, object] | None = getattr(config, "workerinput", None)
    folders = [config.rootpath / name for name in config.getini("testpaths")]
    if told is None or [config.invocation_params.dir / name for name in config.args] != folders:
        return
    files = sorted(str(path) for folder in folders for path in folder.rglob("test_*.py"))
    number = int(str(told["workerid"]).removeprefix("gw"))
    begin = len(files) * number // int(str(told["workercount"])) % len(files)
    config.args[:] = files[begin:] + files[:begin]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in the order that they have in every process."""
    items.sort(key=lambda item: str(item.path))
