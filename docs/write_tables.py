"""Writes the tables of the documents that come from the code: `make docs`.

A table stands between two comments of HTML with its name, `<!-- settings -->` and `<!-- /settings -->`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gatewayx.config import manual
from gatewayx.gateway import cors
from gatewayx.http import problems

DOCS = Path(__file__).parent

# Page, name of the table in it, and what makes the table.
TABLES: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("http-api.md", "problems", problems.markdown_table),
    ("http-api.md", "pages", cors.markdown_tables),
    ("settings.md", "settings", manual.markdown_tables),
)


def filled(text: str, name: str, table: str) -> str:
    """Return a page with this table in its place. Raises ValueError if the page has no such place, or two."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the page must have one {begin.strip()} and one {end.strip()}")
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}\n{table.rstrip()}\n\n{end}{after}"


def main() -> None:
    """Write every table into its page."""
    for page, name, make in TABLES:
        path = DOCS / page
        path.write_text(filled(path.read_text(encoding="utf-8"), name, make()), encoding="utf-8")


if __name__ == "__main__":
    main()
