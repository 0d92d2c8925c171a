"""Sentences made from runs: true whatever the runs say."""
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2kd_lite.results import claims

PERCENT = st.integers(0, 100_000).map(lambda thousandths: thousandths / 1000)


def run(left, last, average, added=1000, seed=0):
    """The rows of a run of two steps, as a bank has them."""
    common = {"seed": seed, "average_incremental_accuracy": average}
    return [common | {"classes_seen": 20, "top1": 90.0, "accuracy_by_step": [90.0], "bytes_total": 500},
            common | {"classes_seen": 40, "top1": last, "accuracy_by_step": [left, 2 * last - left], "bytes_total": 500 + added}]


def test_the_first_sentence_has_the_numbers_of_the_four_runs():
    said = claims.lead(run(0.0, 40.0, 65.0), run(6.0, 46.0, 58.8), run(9.8, 47.6, 57.2, 1_293_414), run(6.7, 45.2, 54.2, 98_899))
    assert said == ("Of the first 20 classes fine-tuning still knows 0.0 % after step 2, LwF-MC 6.0 %, M²KD 9.8 %, and 6.7 % with pruning; "
                    "M²KD ends 1.6 points above LwF-MC and is 1.6 points below it on average; pruned, it ends 0.8 points below "
                    "LwF-MC, and adds 0.10 MB where whole models add 1.29 MB.")


@given(chain=st.tuples(PERCENT, PERCENT, PERCENT), whole=st.tuples(PERCENT, PERCENT, PERCENT))
def test_above_is_said_of_what_is_above_and_of_nothing_else(chain, whole):
    said = claims.lead(run(0, 0, 0), run(*chain), run(*whole), run(0, 0, 0))
    end, average = re.search(r"M²KD ends (.*?) LwF-MC and is (.*?) it on average", said).groups()
    for words, ours, theirs in ((end, whole[1], chain[1]), (average, whole[2], chain[2])):
        assert (ours > theirs) == ("above" in words) or abs(ours - theirs) <= claims.LEVEL
        assert words == "level with" or float(words.split()[0]) == pytest.approx(abs(ours - theirs), abs=0.0501)


def test_seeds_are_compared_one_by_one_and_only_those_that_both_have():
    chain = [run(5, 46, 58, seed=0), run(11, 47, 59, seed=2), run(0, 0, 0, seed=7)]
    whole = [run(10.8, 50, 59, seed=2), run(9, 47, 57, seed=0)]
    said = claims.seeds(chain, whole)
    assert "with seeds 0, 2:" in said and "left of the first classes in 1 of 2 (+4.0, -0.2 points)" in said
    assert "after the last step in 2 of 2 (+1.0, +3.0 points)" in said and "on average in 0 of 2 (-1.0, +0.0 points)" in said
    assert claims.seeds(chain, []) == ""


@pytest.mark.parametrize("points, said", [(1.24, "1.2 points above"), (-0.31, "0.3 points below"), (0.04, "level with"),
                                          (-0.0, "level with")])
def test_a_difference_in_words(points, said):
    assert claims.apart(points) == said
