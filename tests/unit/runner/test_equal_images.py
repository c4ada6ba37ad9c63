"""Images that are learnt from and tested on, and images under two labels, are told."""

from anomaly_runner.data.equal_images import equal_images_warnings
from anomaly_runner.data.samples import DatasetIndex, Sample

Named = tuple[tuple[str, str], ...]


def dataset(train: Named = (), validation: Named = (), test: Named = ()) -> DatasetIndex:
    """Images by split, each with its name and label."""
    splits = [tuple(Sample(*image) for image in images) for images in (train, validation, test)]
    return DatasetIndex(train=splits[0], validation=splits[1], test=splits[2])


def test_images_of_both_sides_are_told() -> None:
    found = dataset(
        train=(("a", "good"), ("b", "good"), ("broken", "good")),
        validation=(("c", "good"),),
        test=(("d", "good"), ("e", "dent"), ("f", "dent"), ("g", "unknown"), ("damaged", "good")),
    )
    digests = {"a": b"1", "b": b"2", "broken": b"", "c": b"1", "d": b"3", "e": b"2", "f": b"4", "g": b"1"}
    assert equal_images_warnings(found, digests | {"damaged": b""}) == (
        "3 images to validate or test on equal images to learn from, which makes metrics wrong: c, e, g",
        "1 images to test on equal images to validate on, which makes metrics wrong: g",
    )


def test_images_under_two_labels_are_told() -> None:
    """An unknown label contradicts none."""
    found = dataset(
        validation=(("a", "good"), ("b", "good")),
        test=(("c", "dent"), ("d", "dent"), ("e", "dent"), ("f", "unknown"), ("g", "rip"), ("h", "good")),
    )
    digests = {"a": b"1", "b": b"2", "c": b"1", "d": b"3", "e": b"3", "f": b"2", "g": b"4", "h": b"2"}
    assert equal_images_warnings(found, digests) == (
        "3 images to test on equal images to validate on, which makes metrics wrong: c, f, h",
        "2 images equal one of another label, which makes metrics wrong: a, c",
    )


def test_files_that_were_not_read_and_painted_defects_equal_nothing() -> None:
    painted = Sample("a (synthetic defect 0)", "synthetic defect", source="a")
    found = DatasetIndex(
        train=(Sample("t", "good"), Sample("gone", "good")),
        validation=(Sample("a", "good"), painted),
        test=(Sample("absent", "dent"),),
    )
    assert equal_images_warnings(found, {"t": b"1", "a": b"2"}) == ()


def test_of_many_three_are_named() -> None:
    found = dataset(train=(("t", "good"),), test=tuple((str(index), "good") for index in range(4)))
    (told,) = equal_images_warnings(found, {"t": b"1"} | {str(index): b"1" for index in range(4)})
    assert told.startswith("4 images")
    assert told.endswith(": 0, 1, 2, ...")
