"""Examples in the documents: commands as a reader would type them, and what they print.

An example is a block of code with lines that begin with "$ ", each a command, and behind each what it prints. A line
that is "..." stands for any lines, "..." within a line for any text. What differs each time, such as ids and times,
stands for another one of its kind, an id of a job for the same one wherever it is named.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import NamedTuple

from support.times import PROCESS_S
from support.tools import without_sanitizer

# Where the documents have their gateway.
TOLD_ADDRESS = "127.0.0.1:8080"
BLOCK = re.compile(
    r"(?:^<!-- settings: (?P<settings>[^\n]*) -->\n\n?)?^```(?:\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)

# An id of a job, kept or in the background.
JOB_ID = r"(?<![\w-])(?:k[\w-]{40}|b[\w~-]{60,})(?![\w-])"
# What differs each time, as whatever is of its kind.
OTHERS = (
    r"gatewayx-[a-z2-7]{20}-[0-9]+",
    r"gatewayx/[0-9][\w.]*",
    r"H:[\w.-]+:[0-9]+",
    r"[a-z2-7]{13}-[0-9]{14}",
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(?:\.[0-9]{3})?Z",
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT",
    r"(?<=Retry-After: )[0-9]+",
    r"(?<=retry: )[0-9]{4}",
)
TOKEN = re.compile(
    "|".join([rf"(?P<id>{JOB_ID})", r"(?P<any>\.\.\.)", *(f"(?P<of_{n}>{kind})" for n, kind in enumerate(OTHERS))])
)


class Example(NamedTuple):
    """One command and what it prints; settings: of the gateway that it is for, as the document says them."""

    settings: str
    command: str
    printed: str


def examples_of(page: str) -> Iterator[Example]:
    """All examples of a page, in order."""
    for block in BLOCK.finditer(page):
        if not block["text"].startswith("$ "):
            continue
        for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
            # Lines that end so go on in the next one.
            lines = part.split("\n")
            end = next(number for number, line in enumerate(lines) if not line.endswith("\\")) + 1
            yield Example(block["settings"] or "", "\n".join(lines[:end]), "\n".join(lines[end:]).strip("\n"))


class Reader:
    """Types the examples of a page at a gateway, (host, port)."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        # What the page calls a job, to what it is called here.
        self.ids: dict[str, str] = {}
        # All jobs that were told of here, those that the page leaves out as well.
        self.jobs: set[str] = set()

    async def tries(self, example: Example) -> str | None:
        """What was printed, unless it was what the page says. What only asks is asked again until it is."""
        ends_s = asyncio.get_running_loop().time() + PROCESS_S
        while True:
            printed = await self._run(example.command)
            if self._is_as_told(printed, example.printed):
                return None
            only_asks = not re.search(r" (-d|-X|--data\S*) ", example.command)
            if not only_asks or asyncio.get_running_loop().time() > ends_s:
                return printed
            await asyncio.sleep(0.1)

    async def _run(self, command: str) -> str:
        for told, here in self.ids.items():
            command = command.replace(told, here)
        command = command.replace(TOLD_ADDRESS, "{}:{}".format(*self.address))
        # Without the reader's own settings and proxies, and without a picture of how far it is.
        command = re.sub(r"\bcurl ", "curl -q -sS --noproxy '*' ", command)
        # A tool that is given the sanitizer's allocator may hang in it.
        process = await asyncio.create_subprocess_shell(
            command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=without_sanitizer()
        )
        try:
            printed, _ = await asyncio.wait_for(process.communicate(), PROCESS_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = printed.decode().replace("\r\n", "\n").strip("\n")
        self.jobs.update(re.findall(JOB_ID, text))
        return text

    def _is_as_told(self, printed: str, told: str) -> bool:
        names: dict[str, str] = {}
        pattern = ""
        for line in told.split("\n"):
            pattern += r"(?:.*\n)*?" if line == "..." else self._pattern(line, names) + r"\n"
        found = re.fullmatch(pattern, printed + "\n")
        if found is None:
            return False
        self.ids |= {name: found[group] for name, group in names.items()}
        return True

    def _pattern(self, line: str, names: dict[str, str]) -> str:
        """Of what a line stands for; names: ids that are new on the page, to their groups."""
        pattern, at = "", 0
        for token in TOKEN.finditer(line):
            pattern += re.escape(line[at : token.start()])
            at = token.end()
            name = token.group()
            if token.lastgroup == "any":
                pattern += ".*"
            elif token.lastgroup != "id":
                pattern += f"(?:{OTHERS[int(token.lastgroup.removeprefix('of_'))]})"
            elif name in self.ids:
                pattern += re.escape(self.ids[name])
            elif name in names:
                pattern += f"(?P={names[name]})"
            else:
                names[name] = f"id_{len(names)}"
                pattern += f"(?P<{names[name]}>{JOB_ID})"
        return pattern + re.escape(line[at:])
