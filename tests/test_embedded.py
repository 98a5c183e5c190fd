"""The data sets as training sees them: pinned whole, in their fixed order."""

import pytest

from cvhw4.data.embedded import embedded_portraits, embedded_scenes

FINGERPRINTS = {
    "classification": "c856bf2a8d53c86bc552aeb7814a2341cbbbeb9b78c02feca1ccde1d263116ef",
    "segmentation": "aee6e6c5db9326c3d57566c73cb4933ca8e4a6833e35a39175a3f2a35df81e95",
}


@pytest.mark.parametrize("load", [embedded_portraits, embedded_scenes])
def test_the_whole_data_set_is_pinned(load):
    data = load()
    assert data.embedded
    assert data.fingerprint == FINGERPRINTS[data.task]


def test_position_says_nothing_of_class():
    data = embedded_portraits()
    assert (len(data.train), len(data.val)) == (256, 200)
    for split in (data.train, data.val):
        assert split.targets.sum() * 2 == len(split)
        assert 0.4 < (split.targets[1:] == split.targets[:-1]).mean() < 0.6
    assert set(data.train.names).isdisjoint(data.val.names)
