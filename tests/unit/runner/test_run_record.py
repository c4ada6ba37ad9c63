"""What a run notes about itself: which warnings come first, its course, and why its training is to end."""

import pytest

from anomaly_runner.context import About, RunRecord
from anomaly_runner.training.curve import make_curve


def test_what_the_numbers_depend_on_comes_first_whenever_it_was_noticed() -> None:
    record = RunRecord()
    record.warn("no cache", about=About.EXTRAS)
    record.warn("two frames", "no mask")
    record.warn("found on the test images", "no AUPRO", about=About.RESULTS)
    record.warn("early stopping is off")
    assert record.warnings == (
        "found on the test images",
        "no AUPRO",
        "two frames",
        "no mask",
        "early stopping is off",
        "no cache",
    )


def test_a_long_warning_ends_in_dots_and_is_whole_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    record = RunRecord()
    record.warn("x" * 256, "y" * 257)
    assert record.warnings == ("x" * 256, f"{'y' * 253}...")
    assert "y" * 257 in caplog.text


def test_the_first_reason_to_end_a_training_is_kept_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    record = RunRecord()
    record.prune("others are better")
    record.prune("another reason")
    assert record.pruned == "others are better"
    (line,) = caplog.records
    assert (line.message, line.__dict__["detail"]) == (
        "the training is to end after the epoch at work",
        "others are better",
    )


def test_the_last_course_of_a_training_is_kept() -> None:
    record = RunRecord()
    for losses in ([(1, 0.5)], [(1, 0.5), (2, 0.25)]):
        record.show_curve(make_curve("trainLoss", losses, 8))
    assert record.curve == make_curve("trainLoss", [(1, 0.5), (2, 0.25)], 8)
