import numpy as np
import pytest
import torch
from PIL import Image

from moebius.inference.results import check_output_type, convert_output


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_arrays_and_tensors_hold_the_same_pictures(mode, channels):
    pictures = [Image.effect_noise((6, 4), n).convert(mode) for n in (20, 50)]
    assert convert_output(pictures, "pil") is pictures
    array, tensor = convert_output(pictures, "np"), convert_output(pictures, "pt")
    assert array.shape == (2, 4, 6, channels) and array.dtype == np.float32
    assert torch.equal(tensor, torch.from_numpy(array).permute(0, 3, 1, 2))
    levels = (array[1] * 255).round().astype(np.uint8)
    assert np.array_equal(levels.squeeze(), np.asarray(pictures[1]))


def test_pictures_of_different_sizes_are_no_array():
    with pytest.raises(ValueError, match="differ in size"):
        convert_output([Image.new("L", (4, 4)), Image.new("L", (4, 5))], "np")


def test_unknown_types_are_refused():
    check_output_type("pt")
    with pytest.raises(ValueError, match="'jpeg' is unknown: use 'pil', 'np' or 'pt'"):
        check_output_type("jpeg")
