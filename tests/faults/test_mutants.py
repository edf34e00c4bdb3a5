"""The table of mutants is not stale; `make mutants` tries them, which takes minutes."""

from tests.faults.mutants import MUTANTS, stale


def test_each_mutant_is_one_change_to_the_code_that_there_is_with_a_test_that_there_is():
    assert len({mutant.name for mutant in MUTANTS}) == len({(m.file, m.text) for m in MUTANTS}) == 20
    assert stale() == []
