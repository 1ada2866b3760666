"""Taps: the paper's pair, differing depths, and shapes that do not meet."""

import pytest
import torch

import moebius
from moebius.distill.taps import Adapter, join_taps, teacher_tap
from moebius.models.denoiser import Denoiser, category_ids

SMALL = {"lcg_dim": 8, "context_dim": 8, "latent_size": 16}


def make(arch: str, *widths: int) -> Denoiser:
    return moebius.build(arch, widths=widths, depths=[1] * len(widths), **SMALL).eval()


@pytest.fixture(scope="module")
def student() -> Denoiser:
    return make("lmi_dw_mixffn", 32, 32, 64)


@pytest.fixture(scope="module")
def teacher() -> Denoiser:
    return make("pixelhacker", 32, 32, 64, 64)


def features(model: Denoiser, size: int) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return model(torch.randn(1, 9, size, size), 5, category_ids(torch.zeros(1))).features


def test_the_papers_pair_meets_at_the_teachers_first_up_stage():
    with torch.device("meta"):
        student, teacher = moebius.build("lmi_dw_mixffn"), moebius.build("pixelhacker")
    # (C, h, w) of both at 512 px: the release's third down output and first up output.
    assert student.feature_shapes()["down.2"] == teacher.feature_shapes()["up.0"] == (1280, 16, 16)
    assert join_taps(student, teacher, 64) == ("down.2", "up.0", None)


def test_named_taps_of_one_shape_are_taken(student: Denoiser, teacher: Denoiser):
    assert join_taps(student, teacher, 16) == ("down.2", "up.0", None)
    assert join_taps(student, teacher, 16, "down.0", "down.0") == ("down.0", "down.0", None)


def test_a_teacher_of_the_students_depth_is_met_at_the_same_name(student: Denoiser):
    twin = make("gla_ca_conv_ffn", 32, 32, 64)
    assert teacher_tap(student, twin, "down.1") == "down.1"
    assert join_taps(student, twin, 16)[:2] == ("down.2", "down.2")


def test_differing_shapes_are_refused_with_both_named(student: Denoiser):
    wide = make("pixelhacker", 32, 32, 96, 96)
    expected = (
        r"student lmi_dw_mixffn down.2 is \(64, 4, 4\), teacher pixelhacker up.0 is \(96, 4, 4\); "
        r".*distill.adapter=true"
    )
    with pytest.raises(ValueError, match=expected):
        join_taps(student, wide, 16)


def test_a_feature_that_does_not_exist_is_refused(student: Denoiser, teacher: Denoiser):
    with pytest.raises(ValueError, match=r"student lmi_dw_mixffn has no feature 'mid'; it has dow"):
        join_taps(student, teacher, 16, "mid")
    with pytest.raises(ValueError, match=r"teacher pixelhacker has no feature 'up.9'; it has down"):
        join_taps(student, teacher, 16, None, "up.9")


def test_an_adapter_joins_width_and_size(student: Denoiser, teacher: Denoiser):
    ours, theirs, adapter = join_taps(student, teacher, 16, "down.2", "down.0", adapter=True)
    assert adapter is not None
    source, target = features(student, 16)[ours], features(teacher, 16)[theirs]
    assert source.shape != target.shape == adapter(source).shape
    assert {name for name, _ in adapter.named_parameters()} == {"conv.weight", "conv.bias"}


def test_equal_widths_on_maps_of_different_size_differ_too():
    student, teacher = make("lmi_dw_mixffn", 32, 32, 32), make("pixelhacker", 32, 32, 32, 32)
    with pytest.raises(ValueError, match=r"the coarse taps differ"):
        join_taps(student, teacher, 16, "down.2", "down.0")
    assert join_taps(student, teacher, 16, "down.2", "down.0", adapter=True)[2] is not None


def test_an_adapter_is_made_only_where_it_is_needed(student: Denoiser, teacher: Denoiser):
    assert join_taps(student, teacher, 16, adapter=True)[2] is None


def test_an_adapter_of_equal_size_is_one_convolution():
    adapter, x = Adapter((2, 4, 4), (3, 4, 4)), torch.randn(1, 2, 4, 4)
    assert torch.equal(adapter(x), adapter.conv(x))
