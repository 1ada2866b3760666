from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from moebius.inference.inputs import list_generators, list_images, list_masks

PICTURE, ARRAY, BOXES = Image.new("L", (2, 2)), np.zeros((2, 2), bool), [(0, 0, 1, 1)]


def test_one_is_a_list_of_one():
    assert list_images(PICTURE) == [PICTURE] and list_images((PICTURE, PICTURE)) == [PICTURE] * 2
    assert len(list_images(ARRAY)) == 1


@pytest.mark.parametrize("mask", [PICTURE, ARRAY, BOXES])
def test_one_mask_serves_all_and_lists_are_taken_one_by_one(mask):
    assert all(one is mask for one in list_masks(mask, 3)) and len(list_masks(mask, 3)) == 3
    first, second = list_masks([mask, PICTURE], 2)
    assert first is mask and second is PICTURE
    with pytest.raises(ValueError, match="1 masks for 2 images"):
        list_masks([mask], 2)


def test_generators_go_to_the_results_of_each_image_in_turn():
    four = [torch.Generator() for _ in range(4)]
    assert list_generators(four, 2, 2) == [four[:2], four[2:]]
    assert list_generators(four[0], 2, 1) == [[four[0]], [four[0]]]
    [[new]], [[other]] = list_generators(None, 1, 1), list_generators(None, 1, 1)
    assert new.initial_seed() != other.initial_seed()


def test_generators_of_other_devices_are_refused():
    on_gpu = SimpleNamespace(device=torch.device("cuda"))
    with pytest.raises(ValueError, match="not on the CPU"):
        list_generators([on_gpu], 1, 1)
