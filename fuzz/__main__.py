"""The command line: python -m fuzz TARGET [--fuzz SECONDS] [--minimize] [--mutations COUNT] [FILE ...]."""

from __future__ import annotations

import argparse
import heapq
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

from fuzz.corpus import keep, kept
from fuzz.mutations import MAX_INPUT_BYTES, run_inputs, run_mutations

TARGETS = (
    "packet_reader",
    "request_parser",
    "proxy_header",
    "forwarded",
    "key_header",
    "batch_lines",
    "http_connection",
    "tls_stream",
)
# One run of a target takes milliseconds; this is a hang, on a busy machine too.
RUN_TIMEOUT_S = 60
# Of the whole fuzzer, whose own tables need half of it: what a target holds on to shows here.
MEMORY_LIMIT_MEBIBYTES = 1024
# Of a target; the tests run all of them.
MAX_KEPT = 200
BUILD = Path("build/fuzz")


def start(name: str, options: list[str], directories: list[Path]) -> ModuleType:
    """Set atheris up for a target and return that; its Fuzz() then does not return."""
    import atheris

    # The compiled modules call libFuzzer's functions: it must be visible to them when they are loaded.
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_GLOBAL)
    importlib.import_module("atheris.core_with_libfuzzer")
    sys.setdlopenflags(flags)
    target = importlib.import_module(f"fuzz.{name}")
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
    common = [
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={RUN_TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_LIMIT_MEBIBYTES}",
    ]
    atheris.Setup([name, *common, *options, *map(str, directories)], target.one_input, internal_libfuzzer=True)
    return target


def fuzz(name: str, seconds: int) -> None:
    """Fuzz for `seconds`, guided by the coverage of the compiled modules; does not return.

    The corpus grows in build/fuzz/corpus and is used again; an input that fails is written to build/fuzz/failures.
    """
    import atheris

    corpus = BUILD / "corpus" / name
    failures = BUILD / "failures" / name
    dictionary = BUILD / "corpus" / f"{name}.dictionary"
    failures.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={failures}/",
        f"-dict={dictionary}",
        "-print_final_stats=1",
    ]
    target = start(name, options, [corpus])
    for number, seed in enumerate([*target.seeds(), *kept(name)]):
        (corpus / f"seed-{number:04}").write_bytes(seed)
    lines = ["".join(f"\\x{byte:02x}" for byte in token) for token in target.TOKENS]
    dictionary.write_text("".join(f'"{line}"\n' for line in lines))
    atheris.Fuzz()


def minimize(name: str) -> None:
    """Keep, of the inputs in build/fuzz/corpus, few that reach all that they reach together."""
    import atheris

    files = sorted((BUILD / "corpus" / name).iterdir(), key=lambda file: (file.stat().st_size, file.name))
    with tempfile.TemporaryDirectory() as directory:
        # The inner half of libFuzzer's -set_cover_merge=1: runs the files and notes what each reaches.
        notes = Path(directory) / "notes"
        notes.write_text("".join(f"{line}\n" for line in (len(files), 0, *files)))
        child = os.fork()
        if not child:
            start(name, ["-merge_inner=2", f"-merge_control_file={notes}"], [])
            # It ends the process.
            atheris.Fuzz()
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"{name}: an input fails; run those of build/fuzz/corpus")
        # "FT", the number of a file, what it has reached.
        reached = [line.split() for line in notes.read_text().splitlines() if line.startswith("FT ")]
    reaches = {files[int(number)].read_bytes(): frozenset(features) for _, number, *features in reached}
    inputs = cover(reaches)
    keep(name, inputs)
    print(f"{name}: kept {len(inputs)} of {len(files)} inputs, {sum(map(len, inputs))} bytes")


def cover(reaches: dict[bytes, frozenset[str]]) -> list[bytes]:
    """At most MAX_KEPT inputs that together reach what all of them reach, or most of it: the greedy cover."""
    missing = frozenset().union(*reaches.values())
    queue = [(-len(features), len(data), data) for data, features in reaches.items()]
    heapq.heapify(queue)
    chosen = []
    while missing and len(chosen) < MAX_KEPT:
        _, size_bytes, data = heapq.heappop(queue)
        # What an input adds only becomes less, so one that is still ahead of the next is the best.
        gain = (-len(reaches[data] & missing), size_bytes, data)
        if queue and gain > queue[0]:
            heapq.heappush(queue, gain)
        else:
            chosen.append(data)
            missing -= reaches[data]
    return chosen


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Without options: run the files, no atheris.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("files", nargs="*", type=Path, help="inputs to run once, such as those that failed")
    parser.add_argument("--fuzz", type=int, metavar="SECONDS", help="fuzz with atheris; `make fuzz` prepares it")
    parser.add_argument("--minimize", action="store_true", help="keep the fewest inputs of what fuzzing has found")
    parser.add_argument("--mutations", type=int, metavar="COUNT", help="run the seeds and random mutations of them")
    parser.add_argument("--seed", type=int, default=0, help="of the random mutations")
    arguments = parser.parse_args()
    if arguments.fuzz is not None:
        fuzz(arguments.target, arguments.fuzz)
    if arguments.minimize:
        minimize(arguments.target)
        return
    target = importlib.import_module(f"fuzz.{arguments.target}")
    if arguments.mutations is not None:
        inputs = [*target.seeds(), *kept(arguments.target)]
        began_s = time.perf_counter()
        run_inputs(target.one_input, inputs)
        run_mutations(target.one_input, inputs, target.TOKENS, arguments.mutations, arguments.seed)
        took_s = time.perf_counter() - began_s
        print(f"{arguments.target}: {len(inputs) + arguments.mutations} runs in {took_s:.1f} s")
    for file in arguments.files:
        target.one_input(file.read_bytes())
        print(f"{arguments.target}: {file} passed")


if __name__ == "__main__":
    main()
