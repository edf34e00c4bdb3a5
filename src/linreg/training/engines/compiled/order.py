"""The textbook's random order of the data in compiled code: torch's generator and its permutation, to the bit.

The generator is the Mersenne Twister MT19937 (M. Matsumoto and T. Nishimura, Mersenne Twister, 1998): 624 words of 32
bits, uint32, and the place of the next one among them. The permutation is torch.randperm's, a shuffle by exchanges (R.
Durstenfeld, Algorithm 235, 1964).
"""

from typing import Any

import numpy as np

from linreg.training.engines.compiled.kernel import Array, Order, Words, kernel

N_WORDS, DISTANCE = 624, 397
# The places in the state of a torch generator on the CPU, as an array of uint64: the count of numbers until new words
# are made, the place of the next word, and the first word.
LEFT, NEXT, FIRST = 1, 2, 3
LOW = np.uint64(2**32 - 1)


@kernel
def seed(words: Words, number: int, n: int) -> None:
    """Set the first n words as a new generator with this seed has them."""
    word = np.uint32(number)
    words[0] = word
    for i in range(1, n):
        word = np.uint32(np.uint32(1812433253) * (word ^ (word >> np.uint32(30))) + np.uint32(i))
        words[i] = word


@kernel
def twisted(word: Any, after: Any, far: Any) -> Any:
    """Return the new word in the place of `word`, from the next one and the one at a distance."""
    mixed = (word & np.uint32(0x80000000)) | (after & np.uint32(0x7FFFFFFF))
    turned = far ^ (mixed >> np.uint32(1))
    return turned ^ np.uint32(0x9908B0DF) if after & np.uint32(1) else turned


@kernel
def twist(words: Words) -> None:
    """Replace all words by new ones."""
    for i in range(N_WORDS - DISTANCE):
        words[i] = twisted(words[i], words[i + 1], words[i + DISTANCE])
    for i in range(N_WORDS - DISTANCE, N_WORDS - 1):
        words[i] = twisted(words[i], words[i + 1], words[i + DISTANCE - N_WORDS])
    words[N_WORDS - 1] = twisted(words[N_WORDS - 1], words[0], words[DISTANCE - 1])


@kernel
def tempered(word: Any) -> Any:
    """Return the random number of a word."""
    word ^= word >> np.uint32(11)
    word ^= (word << np.uint32(7)) & np.uint32(0x9D2C5680)
    word ^= (word << np.uint32(15)) & np.uint32(0xEFC60000)
    return word ^ (word >> np.uint32(18))


@kernel
def permute(order: Order, number: int, words: Words) -> None:
    """Write the numbers below len(order) in the order of torch.randperm after seeding with `number`. words (624,): for
    the work; it need not be initialized."""
    n = len(order)
    for i in range(n):
        order[i] = i
    if n - 1 <= N_WORDS - DISTANCE:  # all that are drawn come from the first words, so the others are not needed
        seed(words, number, min(N_WORDS, DISTANCE + n))
        for i in range(n - 1):
            exchange(order, i, tempered(twisted(words[i], words[i + 1], words[i + DISTANCE])))
        return
    seed(words, number, N_WORDS)
    place = N_WORDS
    for i in range(n - 1):
        if place == N_WORDS:
            twist(words)
            place = 0
        exchange(order, i, tempered(words[place]))
        place += 1


@kernel
def exchange(order: Order, i: int, random: Any) -> None:
    """Exchange number i of order with a random one of those from i on."""
    j = i + np.int64(random % np.uint32(len(order) - i))
    order[i], order[j] = order[j], order[i]


@kernel
def draw_seed(words: Words, place: int) -> tuple[Any, int]:
    """Return a seed as `data.split.draw_seed` draws it, and the new place: 63 bits of two random numbers.

    Only the lower half, the second number, matters to a generator."""
    drawn = np.uint32(0)
    for _ in range(2):
        if place == N_WORDS:
            twist(words)
            place = 0
        drawn = tempered(words[place])
        place += 1
    return np.int64(drawn), place


@kernel
def load_words(state: Array, words: Words) -> Any:
    """Copy the words of a state to words, and return the place of the next one."""
    for i in range(N_WORDS):
        words[i] = np.uint32(state[FIRST + i])
    return N_WORDS + 1 - np.int64(state[LEFT] & LOW)


@kernel
def store_words(state: Array, words: Words, place: int) -> None:
    """Copy words and the place of the next one to a state."""
    for i in range(N_WORDS):
        state[FIRST + i] = words[i]
    state[LEFT] = (state[LEFT] & ~LOW) | np.uint64(N_WORDS + 1 - place)
    state[NEXT] = np.uint64(place)
