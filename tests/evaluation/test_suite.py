import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from moebius.evaluation.batch_scores import BatchScores
from moebius.evaluation.fid import Moments, frechet_distance
from moebius.evaluation.ids import discriminative_scores
from moebius.evaluation.metrics import PICTURE_SCORES, hole_psnr, hole_ssim, psnr, ssim
from moebius.evaluation.scores import METRICS
from moebius.evaluation.suite import MetricSuite


@pytest.fixture(scope="module")
def suite(made_up_weights: Path) -> MetricSuite:
    return MetricSuite(list(METRICS), made_up_weights)


@pytest.fixture(scope="module")
def batch(suite: MetricSuite, scored) -> BatchScores:
    return suite.score(*scored)


def rows(batch: BatchScores, first: int, last: int) -> BatchScores:
    features = {key: found[first:last] for key, found in batch.features.items()}
    return BatchScores(batch.rows[first:last], features)


def test_every_score_end_to_end_with_made_up_weights(suite: MetricSuite, batch: BatchScores):
    scores = suite.reduce([batch])
    assert set(scores) == set(METRICS)
    for row in batch.rows:
        assert list(row) == [*PICTURE_SCORES, "lpips", "lpips_vgg"]
    for name in batch.rows[0]:
        assert scores[name] == pytest.approx(np.mean([row[name] for row in batch.rows]))
    a, b = (
        [batch.features[f"{k}.{side}"] for side in ("real", "fake")] for k in ("fid_a", "fid_b")
    )
    assert scores["fid"] == pytest.approx(frechet_distance(*map(Moments.of, a), 0))
    assert scores["fid_b"] == pytest.approx(frechet_distance(*map(Moments.of, b), 1))
    assert (scores["p_ids"], scores["u_ids"]) == discriminative_scores(*a)
    assert scores["fid"] > 1e-3 and scores["lpips"] > 1e-3 and scores["lpips_vgg"] > 1e-3


def test_truth_scores_perfectly(suite: MetricSuite, scored):
    _, truth, holes = scored
    scores = suite.reduce([suite.score(truth[:2], truth[:2], holes[:2])])
    assert scores["lpips"] == scores["lpips_vgg"] == 0
    assert scores["fid"] < 1e-3 and scores["fid_b"] < 1e-3
    assert scores["psnr"] == scores["psnr_hole"] == float("inf")
    assert scores["ssim"] == pytest.approx(1) and scores["ssim_hole"] == pytest.approx(1)
    assert (scores["p_ids"], scores["u_ids"]) == (0, pytest.approx(50))


def test_a_picture_does_not_depend_on_its_batch_to_the_bit(
    suite: MetricSuite, batch: BatchScores, scored
):
    alone = suite.score(*(x[1:2] for x in scored))
    assert alone.rows == batch.rows[1:2]
    for key, features in alone.features.items():
        assert features.dtype == np.float32 and features.shape == (1, 2048)
        assert features.tobytes() == batch.features[key][1:2].tobytes()


@pytest.mark.parametrize("cuts", [(0, 2, 3), (0, 1, 2, 3)])
def test_batches_may_be_cut_anywhere(cuts, suite: MetricSuite, batch: BatchScores, tmp_path: Path):
    parts = [rows(batch, cuts[i], cuts[i + 1]) for i in range(len(cuts) - 1)]
    for number, part in enumerate(parts):
        part.save(tmp_path / f"{number}.safetensors")
    files = (BatchScores.load(tmp_path / f"{number}.safetensors") for number in range(len(parts)))
    assert suite.reduce(files) == suite.reduce([batch])


def test_known_moments_of_the_real_pictures_serve_as_well(
    suite, made_up_weights: Path, scored, batch
):
    pieces = [rows(batch, 0, 2), rows(batch, 2, 3)]
    known = suite.real_moments(pieces)
    assert list(known) == ["fid_a", "fid_b"] and known["fid_a"].count == 3
    expected = suite.reduce([batch])
    assert suite.reduce(pieces, real=known) == expected
    fids = MetricSuite(["fid"], made_up_weights)
    without = fids.score(*(x[:1] for x in scored), real=False)
    assert set(without.features) == {"fid_a.fake"}
    first = Moments.of(batch.features["fid_a.real"][:1])
    of_one = frechet_distance(first, Moments.of(batch.features["fid_a.fake"][:1]), 0)
    assert fids.reduce([without], real={"fid_a": first}) == {"fid": pytest.approx(of_one)}
    with pytest.raises(ValueError, match=r"without fid_a.real"):
        fids.reduce([without])
    with pytest.raises(ValueError, match="3 real, 1 result"):
        fids.reduce([without], real=known)
    with pytest.raises(ValueError, match="compare pairs"):
        suite.score(*scored, real=False)


def test_pixel_scores_need_no_weights_and_are_the_library_functions(scored):
    results, truth, holes = scored
    suite = MetricSuite(PICTURE_SCORES)
    batch = suite.score(results, truth, holes)
    assert batch.features == {}
    made, true = (torch.from_numpy(x).permute(0, 3, 1, 2) / 127.5 - 1 for x in (results, truth))
    mask = torch.from_numpy(holes)[:, None].float()
    expected = {
        "psnr_hole": hole_psnr(made, true, mask),
        "ssim_hole": hole_ssim(made, true, mask),
        "psnr": psnr(made, true),
        "ssim": ssim(made, true),
    }
    for name, values in expected.items():
        assert [row[name] for row in batch.rows] == values.tolist()
    skimage = [peak_signal_noise_ratio(t, r) for t, r in zip(truth, results, strict=True)]
    assert [row["psnr"] for row in batch.rows] == pytest.approx(skimage)


def test_provenance_names_definition_library_and_weights(suite: MetricSuite):
    found = suite.provenance()
    assert list(found) == list(METRICS)
    assert set(found["psnr"]) == {"definition"}
    entry = found["fid"]
    assert entry["weights"] == "pt_inception-2015-12-05-6726825d.pth"
    assert entry["library"].startswith("torch-fidelity 0.")
    assert entry["made_up"] and entry["note"].endswith(f"(sha256 {entry['sha256']})")
    assert found["lpips"]["weights"] != found["lpips_vgg"]["weights"]


def test_a_suite_goes_to_a_worker(made_up_weights: Path):
    suite = pickle.loads(pickle.dumps(MetricSuite(["lpips"], made_up_weights)))
    assert suite.names == ("lpips",)


def test_what_cannot_be_scored_is_refused(scored):
    results, truth, holes = scored
    with pytest.raises(ValueError, match="no metric fidd: choose from psnr_hole"):
        MetricSuite(["psnr", "fidd"])
    suite = MetricSuite(["psnr"])
    with pytest.raises(ValueError, match="not float32, uint8 and bool"):
        suite.score(results.astype(np.float32), truth, holes)
    for shapes in ((results[:2], truth, holes), (results, truth, holes[:, :9]), 3 * (results[:0],)):
        with pytest.raises(ValueError):
            suite.score(*shapes)
    with pytest.raises(ValueError, match="no pictures"):
        suite.reduce([])
    batch = suite.score(results, truth, holes)
    with pytest.raises(ValueError, match="scored without ssim: score them anew"):
        MetricSuite(["ssim"]).reduce([batch])
    with pytest.raises(ValueError, match="no hole pixel"):
        MetricSuite(["psnr_hole"]).score(results, truth, np.zeros_like(holes))


def test_missing_libraries_are_named_with_their_extra(made_up_weights: Path, monkeypatch, scored):
    for module, name in (("lpips", "lpips"), ("torch_fidelity", "fid"), ("sklearn", "u_ids")):
        loaded = [key for key in sys.modules if key.partition(".")[0] == module]
        for key in {*loaded, module}:
            monkeypatch.setitem(sys.modules, key, None)
        suite = MetricSuite([name], made_up_weights)
        with pytest.raises(ValueError, match=rf"{module} is missing.*moebius-inpainting\[evaluate"):
            suite.reduce([suite.score(*(x[:1] for x in scored))])
        monkeypatch.undo()
