"""Random mutations of a target's seeds, for where no coverage guides."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

# An input may be longer only if a target expands it itself.
MAX_INPUT_BYTES = 4096

OneInput = Callable[[bytes], None]


def mutated(generator: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """A seed after one to eight random changes; tokens: what the target's format is made of."""
    data = bytearray(generator.choice(seeds))
    for _ in range(generator.randint(1, 8)):
        at = generator.randint(0, len(data))
        change = generator.randrange(6)
        if change == 0 and at < len(data):
            data[at] ^= 1 << generator.randrange(8)
        elif change == 1 and at < len(data):
            data[at] = generator.randrange(256)
        elif change == 2:
            del data[at : at + generator.randint(1, 8)]
        elif change == 3:
            data[at:at] = generator.choice(tokens)
        elif change == 4:
            other = generator.choice(seeds)
            begin = generator.randint(0, len(other))
            data[at : at + generator.randint(0, 16)] = other[begin : begin + generator.randint(1, 64)]
        else:
            data[at:at] = data[at : at + generator.randint(1, 64)]
    return bytes(data[:MAX_INPUT_BYTES])


def run_inputs(one_input: OneInput, inputs: Iterable[bytes]) -> None:
    """Run the inputs; fails with the input's hex."""
    for data in inputs:
        try:
            one_input(data)
        except BaseException as error:
            error.args = (f"{error}\nthe input is bytes.fromhex({data.hex()!r})",)
            raise


def run_mutations(one_input: OneInput, seeds: Sequence[bytes], tokens: Sequence[bytes], count: int, seed: int) -> None:
    """Run `count` mutations of the seeds, the same ones for the same `seed`; fails with the input's hex."""
    generator = random.Random(seed)
    run_inputs(one_input, (mutated(generator, seeds, tokens) for _ in range(count)))
