"""The grammar, stage-wise mixtures and what they refuse."""

import pytest

from moebius.models.architectures import NAMES, STUDENTS, canonical, resolve

MIXED = {
    "base": "lmi_dw_mixffn",
    "stages": [
        {},
        {"self": "gla", "conv": "conv"},
        {"self": {"name": "local_lambda", "window": 7}, "cross": "cross_attention", "depth": 1},
    ],
}


def test_the_grammar_has_sixteen_names_and_the_teacher() -> None:
    assert len(set(STUDENTS)) == 16
    assert set(NAMES) - set(STUDENTS) == {"pixelhacker"}


def test_long_form_means_the_short_one() -> None:
    assert canonical("ll_il_dw_mixffn") == "lmi_dw_mixffn"
    assert resolve("ll_il_dw_mixffn") == resolve("lmi_dw_mixffn")


def test_stages_choose_their_own_operators() -> None:
    stages = resolve(MIXED).stages
    assert [stage.self_mixer for stage in stages] == [
        "local_lambda",
        "gla",
        {"name": "local_lambda", "window": 7},
    ]
    assert [stage.depth for stage in stages] == [2, 2, 1]
    assert [stage.conv for stage in stages] == ["dw_conv", "conv", "dw_conv"]


def test_widths_reach_the_middle_block() -> None:
    teacher = resolve("pixelhacker", widths=(32, 32, 64, 96))
    assert teacher.middle is not None and teacher.middle.width == 96


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("lmi_dw_mixfn", {}, "did you mean 'lmi_dw_mixffn'"),
        ("lmi_dw_mixffn", {"widths": (32, 64)}, "2 values for 3 stages"),
        ("lmi_dw_mixffn", {"latent_sice": 8}, "did you mean 'latent_size'"),
        ({"stages": [{"width": 32, "selff": "gla"}]}, {}, "stages.0.selff"),
        ({"base": "lmi_dw_mixffn", "stages": "gla"}, {}, "list of mappings"),
        ("missing.yaml", {}, "cannot read missing.yaml"),
    ],
)
def test_bad_architectures_are_named(arch, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(arch, **options)
