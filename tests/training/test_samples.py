"""What of a scan is taught, and what is left open."""

from __future__ import annotations

from dataclasses import replace

from bids_cmb.training.samples import targets_of

from .tiny import invisible, tiny_scan


def test_nothing_is_learnt_of_what_is_between_a_microbleed_and_a_macrobleed() -> None:
    scan = tiny_scan(1)
    here = (1.0, 2.0, 3.0)
    scan = replace(
        scan, mimics=((here, 10.0, "macrobleed"), (here, 20.0, "macrobleed"), (here, 2.0, "pineal"))
    )
    *bleeds, between = targets_of(scan)
    assert [t.counts for t in bleeds] == [True] * 3
    assert (between.position, between.diameter, between.counts) == (here, 20.0, False)


def test_a_bleed_that_no_rater_sees_or_that_is_too_wide_does_not_count() -> None:
    assert not any(t.counts for t in targets_of(invisible(tiny_scan(1)))[:3])
    wide = replace(tiny_scan(1), lesions=tuple(replace(x, diameter=13.0) for x in tiny_scan(1).lesions))
    assert not any(t.counts for t in targets_of(wide)[:3])
