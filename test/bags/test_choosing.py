"""A few samples stand for the whole drive, rare driving included, and always the same ones."""

from collections import Counter
from dataclasses import replace

from owled_ros.bags.choosing import choose_samples, kind_of, split_held_out
from owled_ros.bags.samples import Moment
from owled_ros.driver.action import Action, Command, EgoState, Maneuver


def drive(bag='bag', seconds=200):
    """Ten frames a second; braking for 2 s, a left curve for 3 s, all else straight and steady."""
    moments = []
    for tick in range(seconds * 10):
        braking, turning = 500 <= tick < 520, 1200 <= tick < 1230
        action = Action(-3.0 if braking else 0.0, 0.05 if turning else 0.0, Maneuver.KEEP_LANE)
        moments.append(Moment(EgoState(8), Command(), action, '', tick * 10**8, bag))
    return moments


def test_rare_driving_is_seen_and_the_drive_is_covered():
    moments = drive()
    chosen = choose_samples(moments, 40, seed=3)
    assert len(chosen) == 40 == len({m.stamp for m in chosen})
    assert [m.stamp for m in chosen] == sorted(m.stamp for m in chosen)
    kinds = Counter(kind_of(m.action) for m in chosen)
    assert len(kinds) == 3 and min(kinds.values()) >= 3
    # Of steady driving there is a sample in every tenth of the drive.
    assert {m.stamp * 10 // (200 * 10**9) for m in chosen} == set(range(10))


def test_the_seed_decides():
    moments = drive()
    assert choose_samples(moments, 20, 1) == choose_samples(moments, 20, 1)
    assert choose_samples(moments, 20, 1) != choose_samples(moments, 20, 2)


def test_small_and_large_counts():
    moments = drive(seconds=5)
    assert choose_samples(moments, 100) == moments
    assert choose_samples(moments, 0) == [] == choose_samples([], 5)
    assert len({kind_of(m.action) for m in choose_samples(drive(), 3)}) == 3


def test_held_out_pieces_are_apart_in_time():
    kept, held_out = split_held_out(drive() + drive('other', 31))
    assert len(kept) + len(held_out) == 2310
    assert {m.stamp // (3 * 10**9) for m in held_out if m.bag == 'bag'} == set(range(4, 67, 5))
    assert 0.18 < len(held_out) / 2310 < 0.22


def test_driving_that_occurs_once_is_calibrated_on():
    for at in range(0, 200, 2):
        moments = [replace(moment, action=replace(moment.action, acceleration=(
            -3.0 if at <= moment.stamp / 1e9 < at + 2 else 0.0))) for moment in drive()]
        kept, held_out = split_held_out(moments)
        assert {kind_of(m.action) for m in kept} == {kind_of(m.action) for m in moments}
        assert len(held_out) >= 0.15 * len(moments)


def test_short_drives():
    kept, held_out = split_held_out(drive(seconds=5))
    assert (len(kept), len(held_out)) == (30, 20)
    kept, held_out = split_held_out(drive(seconds=2))
    assert (len(kept), len(held_out)) == (20, 0)
