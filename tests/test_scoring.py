"""Protocols by name, shards of work, what is not made anew, and the real set's statistics."""

import numpy as np
import pytest
import torch

from moebius.config import Scoring
from moebius.data.copies import bring, open_place, publish
from moebius.evaluation import suite as suite_module
from moebius.evaluation.benchmark import prepare_benchmark
from moebius.evaluation.methods import MeanMethod
from moebius.evaluation.pixels import read_picture, write_png
from moebius.evaluation.published import published
from moebius.evaluation.scores import METRICS
from moebius.evaluation.suite import MetricSuite
from moebius.evaluation.weights import WeightsFile
from moebius.scoring import (
    Job,
    Sent,
    Shard,
    Statistics,
    Worker,
    load_scores,
    make_shards,
    one_thread,
    open_folder,
    protocol_names,
    read_protocol,
    resolve_protocol,
)

EIGHT = {
    "places2_test": (10_000, 512, "fid", 2.5),
    "places2_large": (36_500, 512, "fid", 2.5),
    "places2_small": (36_500, 512, "fid", 2.5),
    "places2_256": (36_500, 256, "fid_b", 2.5),
    "celebahq_512": (2_993, 512, "fid", 2.0),
    "ffhq_256": (10_000, 256, "fid_b", 2.0),
    "ood_natural": (10_000, 512, "fid", 2.5),
    "ood_portrait": (3_000, 512, "fid", 2.0),
}
"""Pictures, side, first metric and guidance scale (protocols, sections 1.1 and 3)."""


def test_the_papers_eight_benchmarks_and_ours_are_there():
    assert set(protocol_names()) == {*EIGHT, "builtin"}


@pytest.mark.parametrize("name", EIGHT)
def test_a_protocol_says_what_the_paper_does(name):
    protocol, (count, size, metric, guidance) = read_protocol(name), EIGHT[name]
    assert (protocol.images.count, protocol.size) == (count, size)
    assert protocol.metrics == [metric, "lpips", "psnr", "ssim"]
    sampling = protocol.sampling
    assert (sampling.side, sampling.steps, sampling.guidance) == (512, 20, guidance)
    assert sampling.start == "noise"
    assert protocol.reference is not None and "Moebius" in published(protocol.reference)
    assert protocol.unspecified


@pytest.mark.parametrize("name", [*EIGHT, "builtin"])
def test_every_metric_of_a_protocol_exists(name):
    assert set(read_protocol(name).metrics) <= METRICS.keys()


def test_unknown_protocols_and_keys_are_one_clear_line(write_yaml):
    with pytest.raises(ValueError, match="unknown protocol 'places'; known: builtin, celebahq_512"):
        read_protocol("places")
    data = read_protocol("places2_test").model_dump()
    path = write_yaml("mine.yaml", {**data, "geometri": "crop"})
    with pytest.raises(ValueError, match=r"mine.yaml: unknown key 'geometri'; did you mean 'geom"):
        read_protocol(path)
    assert read_protocol(write_yaml("copy.yaml", data)) == read_protocol("places2_test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": {"generator": "x", "area": [0.5, 0.4]}}, "0.5 is not below 0.4"),
        ({"geometry": "random_crop"}, "need each other"),
        ({"images": {"about": "x", "count": 4, "crops": 2}}, "only the geometry random_crop"),
    ],
)
def test_a_protocol_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        read_protocol(read_protocol("places2_test").model_dump() | change)


def test_a_scoring_sets_steps_guidance_start_and_metrics():
    scoring = Scoring(protocol="places2_test", steps=7, guidance=0, parity=True, metrics=["psnr"])
    protocol = resolve_protocol(scoring)
    assert protocol.sampling.model_dump() == {
        "side": 512,
        "steps": 7,
        "guidance": 0.0,
        "start": "release",
    }
    assert protocol.metrics == ["psnr"]
    assert resolve_protocol(Scoring(protocol="places2_test")) == read_protocol("places2_test")


@pytest.fixture
def benchmark(tmp_path):
    scoring = Scoring(limit=10)
    return prepare_benchmark(resolve_protocol(scoring), scoring, tmp_path / "benchmark")


@pytest.fixture
def folder(tmp_path):
    open_folder(tmp_path / "mean", {"a": 1})
    return tmp_path / "mean"


def work(benchmark, folder, names=("psnr",), batch=4):
    """What the door does, in this process; returns the job, its shards and the metrics."""
    suite = MetricSuite(names)
    shards = make_shards(benchmark, folder, batch, suite.provenance())
    statistics = Statistics(benchmark, suite.provenance())
    real = suite.needs_pairs or statistics.load() is None
    sampling = read_protocol("builtin").sampling
    job = Job(MeanMethod("mean"), sampling, benchmark, folder, [*names], None, real, "cpu")
    worker = Worker(job)
    for shard in shards:
        if not job.is_done(shard):
            assert worker(Shard.of(shard.row())) == len(shard.names)
    statistics.keep(suite, shards)
    return job, shards, suite.reduce(load_scores(shards), statistics.load())


def test_shards_are_fixed_groups_of_all_pictures(benchmark, folder):
    shards = make_shards(benchmark, folder, 4, {})
    assert [len(shard.names) for shard in shards] == [4, 4, 2]
    assert [name for shard in shards for name in shard.names] == benchmark.names
    assert len({shard.record for shard in shards} | {shard.scores for shard in shards}) == 6
    assert [Shard.of(shard.row()) for shard in shards] == shards


def test_a_filled_picture_keeps_its_known_pixels_to_the_bit(benchmark, folder):
    job, _, _ = work(benchmark, folder)
    for name in benchmark.names:
        item, result = benchmark.read(name), read_picture(job.result(name))
        assert np.array_equal(result[~item.hole], item.image[~item.hole])
        assert len(np.unique(result[item.hole], axis=0)) == 1


def test_a_worker_elsewhere_works_in_copies_of_its_own(bucket, tmp_path, monkeypatch):
    """The driver's machine has none of its files until they are brought."""
    monkeypatch.setenv("MOEBIUS_COPIES", str(tmp_path / "copies"))
    place, scoring = bucket.format(f"{tmp_path.name}/scored"), Scoring(limit=4)
    out = open_place(place, "driver")
    benchmark = prepare_benchmark(resolve_protocol(scoring), scoring, out / "benchmark")
    publish(benchmark.folder)
    folder = out / "mean"
    open_folder(folder, {})
    sampling = read_protocol("builtin").sampling
    job = Job(MeanMethod("mean"), sampling, benchmark, folder, ["psnr"], None, False, "cpu")
    shards = make_shards(benchmark, folder, 2, {})

    def elsewhere(shard: Shard) -> int:
        there = Sent.of(job).arrived()
        assert there.folder != folder and there.benchmark.folder != benchmark.folder
        return Worker(there)(Shard.of(shard.row()).within(there.folder))

    assert [elsewhere(shard) for shard in shards] == [2, 2]
    assert not any(map(job.is_done, shards))
    bring(folder)
    assert all(map(job.is_done, shards))

    monkeypatch.setenv("MOEBIUS_COPIES", str(tmp_path / "others"))
    monkeypatch.setattr(Worker, "_fill", None)
    monkeypatch.setattr(Worker, "_score", None)
    assert elsewhere(shards[0]) == 2, "what is finished was made anew"


def test_a_shard_is_done_once_record_pictures_and_scores_are_there(benchmark, folder):
    fresh = make_shards(benchmark, folder, 4, MetricSuite(["psnr"]).provenance())
    job, shards, metrics = work(benchmark, folder)
    assert shards == fresh and all(map(job.is_done, shards))
    shards[0].record.unlink()
    job.result(shards[1].names[2]).unlink()
    shards[2].scores.unlink()
    assert [job.is_filled(shard) for shard in shards] == [False, False, True]
    assert not any(map(job.is_done, shards))
    assert work(benchmark, folder)[2] == metrics
    assert all(map(job.is_done, shards))


def test_other_metrics_are_scored_beside_the_first(benchmark, folder):
    _, shards, first = work(benchmark, folder)
    made = {path: path.stat().st_mtime_ns for path in (folder / "results").iterdir()}
    _, others, _ = work(benchmark, folder, ["ssim"])
    assert {shard.scores for shard in shards}.isdisjoint(shard.scores for shard in others)
    assert made == {path: path.stat().st_mtime_ns for path in (folder / "results").iterdir()}
    assert work(benchmark, folder)[2] == first


def test_what_is_filled_anew_is_scored_anew(benchmark, folder):
    job, shards, _ = work(benchmark, folder)
    _, others, _ = work(benchmark, folder, ["ssim"])
    job.result(shards[0].names[0]).unlink()
    work(benchmark, folder)
    assert shards[0].scores.is_file() and not others[0].scores.is_file()
    assert others[1].scores.is_file()


def test_a_result_that_was_tampered_with_is_not_scored(benchmark, folder):
    job, shards, _ = work(benchmark, folder)
    shards[0].scores.unlink()
    path = job.result(shards[0].names[0])
    write_png(path, 255 - read_picture(path))
    with pytest.raises(ValueError, match="has changed since it was made: remove it"):
        work(benchmark, folder)


def test_another_setting_in_a_methods_folder_is_refused(folder):
    open_folder(folder, {"a": 0})  # nothing was made yet
    open_folder(folder, {"a": 1})
    (folder / "results" / "x.png").touch()
    open_folder(folder, {"a": 1})
    with pytest.raises(ValueError, match=r"mean was made with other settings \(a\); .* --name"):
        open_folder(folder, {"a": 2})


def test_one_thread_is_for_the_cpu_and_is_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread("cpu"):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with one_thread("cuda"):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def small_inception(monkeypatch, tmp_path):
    """In place of Inception, sums over rows: 64 features, no weights."""
    seen = []

    class Sums(torch.nn.Module):
        def __init__(self, weights):
            super().__init__()

        def forward(self, pictures, kind):
            seen.append(len(pictures))
            return pictures.float().sum(dim=(1, 3))

    weights = WeightsFile(tmp_path / "inception.pth", "0" * 64, True)
    monkeypatch.setattr(suite_module, "find_weights", lambda *_: weights)
    monkeypatch.setattr(suite_module, "InceptionFeatures", Sums)
    monkeypatch.setattr(suite_module, "version", lambda _: "0")
    return seen


def test_the_real_sets_statistics_are_made_once(benchmark, tmp_path, small_inception):
    for name in ("first", "second", "third"):
        open_folder(tmp_path / name, {})
    first = work(benchmark, tmp_path / "first", ["fid"])[2]
    assert sum(small_inception) == 20, "results and truth"
    [kept] = benchmark.folder.glob("statistics-*.safetensors")
    small_inception.clear()
    assert work(benchmark, tmp_path / "second", ["fid"], batch=3)[2] == first
    assert sum(small_inception) == 10, "results alone"
    work(benchmark, tmp_path / "third", ["fid", "p_ids"])
    assert sum(small_inception) == 10 + 20, "pairs need the truth's features"
    assert [*benchmark.folder.glob("statistics-*.safetensors")] == [kept]


def test_without_fid_nothing_is_kept(benchmark, folder):
    assert work(benchmark, folder)[2]["psnr"] > 5
    assert not [*benchmark.folder.glob("statistics-*")]
