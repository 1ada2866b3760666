"""MLflow in a local database: one run, whatever happens to the process."""

from pathlib import Path

import pytest

from moebius.distill.run_folder import RunFolder
from moebius.distill.tracking.mlflow import MlflowTracker
from moebius.recipes import read_recipe

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("alembic")


def test_a_run_that_resumes_is_one_run_without_secrets(tiny_recipe, tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("HF_TOKEN", "hidden1")
    monkeypatch.setattr("sys.argv", ["train", "data.source=s3://key:hidden2@bucket"])
    recipe = read_recipe(tiny_recipe, {"data.source": "s3://key:hidden3@bucket/photos"})
    client, states = mlflow.MlflowClient(uri), []
    folder = RunFolder(tmp_path / "out" / "trials" / "9")
    folder.path.mkdir(parents=True)
    for step, finished in ((2, False), (4, True)):
        tracker = MlflowTracker(recipe, folder)
        states.append(client.get_run(tracker.run_id).info.status)
        tracker.log({"step": step, "loss/task": 1 / step})
        tracker.close(finished)
        states.append(client.get_run(tracker.run_id).info.status)
    assert states == ["RUNNING", "FAILED", "RUNNING", "FINISHED"]
    experiment = client.get_experiment_by_name("moebius")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "out/trials/9"
    assert run.data.params["data.source"] == "s3://***@bucket/photos"
    assert run.data.params["training.steps"] == "6"
    history = client.get_metric_history(run.info.run_id, "loss/task")
    assert [(metric.step, metric.value) for metric in history] == [(2, 0.5), (4, 0.25)]
    assert b"hidden" not in (tmp_path / "mlflow.db").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "out"]


def test_an_address_is_asked_for(tiny_recipe, tmp_path: Path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ValueError, match="trackers: mlflow needs MLFLOW_TRACKING_URI"):
        MlflowTracker(read_recipe(tiny_recipe), RunFolder(tmp_path))


@pytest.mark.parametrize("uri", ["nonsense://x", "file:///tmp/mlruns"])
def test_what_mlflow_refuses_is_one_line(tiny_recipe, tmp_path: Path, monkeypatch, uri: str):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match="^trackers: mlflow: ") as refused:
        MlflowTracker(read_recipe(tiny_recipe), RunFolder(tmp_path))
    assert "\n" not in str(refused.value)
