"""Which pairs of values mean the same: an error does not vanish."""

from __future__ import annotations

from penstock.tools.compare.meaning import Compared, Meaning, settle
from penstock.tools.compare.sums import Sums

THRESHOLD = 60.0


def sums(sqnr_db: float, signal: float = 1.0, wrong: int = 0) -> Sums:
    noise = signal * 10 ** (-sqnr_db / 10)
    return Sums(THRESHOLD, signal, noise, elements=100, wrong=wrong)


def pair(sqnr_db: float, *reads: int, formed: float | None = None, **more: object) -> Compared:
    fields: dict[str, object] = {
        "size": 100, "discrete": False, "joins": False, "alike": True,
        "certain": False,
    }  # fmt: skip
    signal, wrong = float(more.pop("signal", 1.0)), int(more.pop("wrong", 0))  # type: ignore
    other = None if formed is None else sums(formed)
    fields |= {"plain": sums(sqnr_db, signal, wrong), "formed": other, "reads": reads}
    return Compared(**(fields | more))  # type: ignore[arg-type]


def settled(*pairs: Compared, ends: float | None = 120.0) -> list[Meaning]:
    return settle(pairs, None if ends is None else sums(ends), THRESHOLD)


def left_out(*pairs: Compared, ends: float | None = 120.0) -> list[int]:
    return [i for i, meaning in enumerate(settled(*pairs, ends=ends)) if meaning.left_out]


def test_what_recovers_was_no_error() -> None:
    assert left_out(pair(120), pair(30, 0), pair(118, 1)) == [1]
    assert settled(pair(120), pair(30, 0), pair(118, 1))[1].after == 118
    # Also when what follows at once is such a value too, and at the end.
    assert left_out(pair(30), pair(25, 0), pair(35, 1), pair(119, 2)) == [0, 1, 2]
    assert left_out(pair(120), pair(30, 0)) == [1]


def test_an_error_stays() -> None:
    assert left_out(pair(120), pair(30, 0), pair(31, 1), pair(28, 2), ends=27) == []
    # One of the two that read it still has it.
    assert left_out(pair(30), pair(118, 0), pair(30, 0), ends=29) == []
    assert left_out(pair(30), pair(118, 0), pair(30, 0), pair(110, 1, 2), ends=109) == [0, 2]
    # One is wrong by another's error.
    assert left_out(pair(30), pair(30), pair(118, 0), pair(30, 0, 1), ends=30) == [0]
    # What is near enough is no question, nor is what gets a little better.
    assert left_out(pair(70), pair(120, 0)) == []
    assert left_out(pair(50), pair(65, 0), ends=65) == []


def test_an_average_takes_noise_away() -> None:
    """30 dB more are no wonder in the mean of a thousand values."""
    assert left_out(pair(35, size=1000), pair(66, 0, size=1), ends=66) == []
    assert left_out(pair(35, size=1000), pair(116, 0, size=1), ends=116) == [0]


def test_a_sum_hides_what_is_small_in_it() -> None:
    """The other operand may be much larger; the noise stays what it is."""
    small = pair(30, signal=1e-6)
    assert left_out(small, pair(90, 0, joins=True), ends=90) == []
    assert left_out(small, pair(120, 0, joins=True), ends=120) == [0]


def test_integers_may_be_equal_by_chance() -> None:
    assert left_out(pair(15), pair(300, 0, discrete=True)) == []
    assert left_out(pair(15), ends=None) == []


def test_other_kinds_of_nodes_need_less() -> None:
    assert left_out(pair(50), pair(65, 0), ends=65) == []
    assert left_out(pair(50, alike=False), pair(65, 0), ends=65) == [0]


def test_a_form_counts_where_what_follows_agrees() -> None:
    formed, after = settled(pair(30, formed=115), pair(118, 0))
    assert formed.formed and not formed.left_out and round(formed.sums.sqnr_db) == 115
    assert not after.formed
    # A wrong scale is an error, not a form.
    found = settled(pair(30, formed=115), pair(30, 0), ends=30)[0]
    assert not found.formed and found.either
    # Unless what follows is right in most places, which it cannot be then.
    assert settled(pair(8, formed=115, wrong=100), pair(30, 0, wrong=10), ends=30)[0].formed
    assert settled(pair(8, formed=115, wrong=10), pair(30, 0, wrong=10), ends=30)[0].either
    # But where no error looks like that.
    assert settled(pair(30, formed=115, certain=True), pair(30, 0), ends=30)[0].formed
    # A form that explains too little leaves the values what they are: not the same.
    assert settled(pair(30, formed=45), pair(118, 0))[0].left_out
