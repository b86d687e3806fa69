"""The command line: python -m fuzz TARGET [--fuzz SECONDS] [--mutations COUNT] [FILE ...]."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

from fuzz.mutations import MAX_INPUT_BYTES, run_mutations

TARGETS = ("packet_reader", "http_connection")
# One run of a target takes milliseconds; this is a hang.
RUN_TIMEOUT_S = 20
# Of the whole fuzzer, whose own tables need half of it: what a target holds on to shows here.
MEMORY_LIMIT_MEBIBYTES = 1024
BUILD = Path("build/fuzz")


def fuzz(name: str, seconds: int) -> None:
    """Fuzz for `seconds`, guided by the coverage of the compiled modules; does not return.

    The corpus grows in build/fuzz/corpus and is used again; an input that fails is written to build/fuzz/failures.
    """
    import atheris

    # The compiled modules call libFuzzer's functions: it must be visible to them when they are loaded.
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_GLOBAL)
    importlib.import_module("atheris.core_with_libfuzzer")
    sys.setdlopenflags(flags)
    target = importlib.import_module(f"fuzz.{name}")

    corpus = BUILD / "corpus" / name
    failures = BUILD / "failures" / name
    dictionary = BUILD / "corpus" / f"{name}.dictionary"
    for directory in (corpus, failures):
        directory.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={RUN_TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_LIMIT_MEBIBYTES}",
        f"-artifact_prefix={failures}/",
        f"-dict={dictionary}",
        "-print_final_stats=1",
    ]
    atheris.Setup([name, *options, str(corpus)], target.one_input, internal_libfuzzer=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    lines = ["".join(f"\\x{byte:02x}" for byte in token) for token in target.TOKENS]
    dictionary.write_text("".join(f'"{line}"\n' for line in lines))
    atheris.Fuzz()


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Without options: run the files, no atheris.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("files", nargs="*", type=Path, help="inputs to run once, such as those that failed")
    parser.add_argument("--fuzz", type=int, metavar="SECONDS", help="fuzz with atheris; `make fuzz` prepares it")
    parser.add_argument("--mutations", type=int, metavar="COUNT", help="run the seeds and random mutations of them")
    parser.add_argument("--seed", type=int, default=0, help="of the random mutations")
    arguments = parser.parse_args()
    if arguments.fuzz is not None:
        fuzz(arguments.target, arguments.fuzz)
    target = importlib.import_module(f"fuzz.{arguments.target}")
    if arguments.mutations is not None:
        seeds = target.seeds()
        began_s = time.perf_counter()
        run_mutations(target.one_input, seeds, target.TOKENS, arguments.mutations, arguments.seed)
        took_s = time.perf_counter() - began_s
        print(f"{arguments.target}: {len(seeds) + arguments.mutations} runs in {took_s:.1f} s")
    for file in arguments.files:
        target.one_input(file.read_bytes())
        print(f"{arguments.target}: {file} passed")


if __name__ == "__main__":
    main()
