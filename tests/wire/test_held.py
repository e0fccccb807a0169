"""The count and digest that a worker's beats carry."""

import random
from itertools import product

from tq.core.vocabulary import AttemptRef
from tq.wire.held import HeldSet, mix, tally


def test_order_plays_no_part() -> None:
    refs = [AttemptRef(job, 0, member, 1, 7) for job, member in product(range(5), range(9))]
    shuffled = refs[:]
    random.Random(3).shuffle(shuffled)
    assert tally(refs) == tally(shuffled)
    assert tally([]) == (0, 0)


def test_each_field_counts() -> None:
    fields = list(product(range(3), repeat=5))
    assert len({mix(AttemptRef(*five)) for five in fields}) == len(fields)


def test_two_sets_of_one_size_differ() -> None:
    left = [AttemptRef(1, 0, member, 1, 7) for member in (0, 3)]
    right = [AttemptRef(1, 0, member, 1, 7) for member in (1, 2)]
    assert tally(left) != tally(right)


def test_the_formula_is_part_of_the_protocol() -> None:
    assert mix(AttemptRef(42, 0, 6, 1, 1000)) == 17394727907420720668


def test_the_wire_takes_the_digest() -> None:
    digests = [tally([AttemptRef(job, 1, 10**8, 3, 2**50)])[1] for job in range(64)]
    assert max(digests) < 2**63 < 2 * max(digests)


def test_a_set_keeps_its_tally_whatever_comes_and_goes() -> None:
    dice = random.Random(5)
    kept, plain = HeldSet(), set[AttemptRef]()
    for _ in range(300):
        refs = [AttemptRef(1, 0, dice.randrange(40), 1, 7) for _ in range(dice.randrange(6))]
        if dice.random() < 0.5:
            kept.update(refs)
            plain.update(refs)
        else:
            kept.difference_update(refs)
            plain.difference_update(refs)
        assert kept.tally == tally(plain)
        assert set(kept) == plain
