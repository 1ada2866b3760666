"""Parameters to the unit and GMACs of Tab. 2."""

import pytest

from moebius.models.architectures import EXPERIMENTS
from moebius.models.complexity import measure_complexity

TABLE = {
    "gla_ca_conv_ffn": (525_856_668, 314.30),
    "ll_ca_conv_ffn": (496_354_468, 318.90),
    "gla_il_conv_ffn": (514_401_868, 307.91),
    "gla_ca_conv_mixffn": (477_987_868, 286.51),
    "gla_ca_dw_ffn": (314_805_891, 183.59),
    "lmi_conv_ffn": (484_899_668, 312.50),
    "lmi_dw_ffn": (273_848_891, 181.79),
    "lmi_dw_mixffn": (225_980_091, 154.00),
}


def test_the_table_covers_every_experiment() -> None:
    assert set(TABLE) == set(EXPERIMENTS)


@pytest.mark.parametrize("arch", TABLE)
def test_tab_2(arch: str) -> None:
    params, gmacs = TABLE[arch]
    counted = measure_complexity(arch)
    assert counted.params == params
    assert counted.params_with_lcg == params + 61_440
    assert counted.gmacs_paper == pytest.approx(gmacs, abs=0.02)
    assert counted.gmacs > counted.gmacs_paper


def test_teacher() -> None:
    counted = measure_complexity("pixelhacker")
    assert counted.params_with_lcg == 862_251_708
    assert counted.gmacs_paper == pytest.approx(337.82, abs=0.02)


def test_einsum_counts_follow_eq_1_and_2() -> None:
    """One 16-wide stage by hand: what the complete count adds to the paper's."""
    stage = {"width": 16, "depth": 1, "conv": "conv"}
    counted = measure_complexity(
        {"stages": [stage]}, latent_size=8, heads=2, norm_groups=4, context_dim=8, lcg_dim=8
    )
    tokens, k, heads, rows = 64, 8, 2, 10
    local = tokens * k * k * (1 + 2 * heads)
    interactive = k * k * rows * (1 + tokens) + 2 * heads * tokens * k * k
    added = round((counted.gmacs - counted.gmacs_paper) * 1e9)
    assert added == 3 * (local + interactive)
