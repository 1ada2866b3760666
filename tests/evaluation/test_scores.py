import pytest

from moebius.evaluation.metrics import PICTURE_SCORES
from moebius.evaluation.scores import DDOF, METRICS, SCORES
from moebius.evaluation.weights import PUBLISHED_FILES

LOWER_IS_BETTER = {"lpips", "lpips_vgg", "fid", "fid_b"}
IDS = {"p_ids", "u_ids"}


def test_every_score_is_known_under_its_own_name():
    assert set(METRICS) == {*PICTURE_SCORES, *LOWER_IS_BETTER, *IDS}
    assert all(metric.name == name for name, metric in METRICS.items())
    assert {m.name for m in METRICS.values() if not m.higher_is_better} == LOWER_IS_BETTER
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)


@pytest.mark.parametrize("name", SCORES)
def test_what_a_score_takes(name: str):
    score = SCORES[name]
    assert score.weights in {*PUBLISHED_FILES, None}
    assert (score.weights is None) == (name in PICTURE_SCORES) == (score.library is None)
    assert (score.features is not None) == (score.weights == "inception")
    assert score.pairs == (name in IDS)
    assert (name in DDOF) == name.startswith("fid")


def test_f_a_divides_by_n_and_f_b_by_one_less():
    assert DDOF == {"fid": 0, "fid_b": 1}
    assert [SCORES[name].features for name in DDOF] == ["fid_a", "fid_b"]
