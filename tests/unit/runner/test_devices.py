"""What a run says of the device that computes."""

import pytest

from anomaly_api.status import Device
from anomaly_runner.devices import _has_tf32


@pytest.mark.parametrize(
    ("device", "has"),
    [
        (Device(name="CPU", provider="torch cpu"), False),
        (Device(name="Tesla T4", provider="torch cuda", compute_capability="7.5"), False),
        (Device(name="NVIDIA A100", provider="torch cuda", compute_capability="8.0"), True),
        (Device(name="NVIDIA B200", provider="torch cuda", compute_capability="10.0"), True),
        (Device(name="GPU", provider="torch cuda"), True),
    ],
    ids=lambda value: value.name if isinstance(value, Device) else None,
)
def test_gpus_since_ampere_have_tf32(device: Device, has: bool) -> None:
    assert _has_tf32(device) is has
