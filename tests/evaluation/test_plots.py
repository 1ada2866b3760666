import numpy as np
import pytest
from matplotlib.text import Annotation, Text
from PIL import Image

from moebius.evaluation import plots
from moebius.evaluation.tables import Metric, Row

PSNR = Metric("hole_psnr", "hole PSNR")


@pytest.mark.parametrize(
    ("higher_is_better", "front"), [(True, [1, 2, 4]), (False, [0, 3])], ids=["psnr", "fid"]
)
def test_pareto_front(higher_is_better, front):
    points = [(1, 10.0), (1, 11.0), (2, 12.0), (3, 9.0), (4, 13.0), (5, 13.0)]
    assert plots.pareto_front(points, higher_is_better) == front


def test_pareto_plot_has_labels_that_do_not_overlap(tmp_path, monkeypatch):
    figures = []
    new_figure = plots._new_figure

    def spy(*size):
        figures.append(new_figure(*size))
        return figures[-1]

    monkeypatch.setattr(plots, "_new_figure", spy)
    scores = [10.0, 18.0, 18.02, 18.04, 18.06, 18.08]  # the outlier presses the others together
    rows = [
        Row(f"{index} gla_ca_conv_ffn", "x", bool(index % 2), {"hole_psnr": value}, 10**6 + index)
        for index, value in enumerate(scores)
    ]
    failed = Row("never", "x", True, error="it broke")
    plots.pareto([*rows, failed], PSNR, tmp_path / "pareto.png")
    [(figure, _)] = figures
    labels = [child for child in figure.axes[0].get_children() if isinstance(child, Annotation)]
    assert sorted(label.get_text() for label in labels) == [row.label for row in rows]
    boxes = [Text.get_window_extent(label) for label in labels]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])
    with Image.open(tmp_path / "pareto.png") as image:
        assert image.format == "PNG" and image.width == 7 * plots.DPI


def test_pareto_plot_without_a_score_or_a_cost_says_so(tmp_path):
    with pytest.raises(ValueError, match="hole_psnr and params"):
        plots.pareto([Row("1", "x", False)], PSNR, tmp_path / "pareto.png")
    with pytest.raises(ValueError, match="hole_psnr and latency_ms"):
        plots.pareto([Row("1", "x", False, {"hole_psnr": 1.0}, 5)], PSNR, tmp_path, "latency_ms")


@pytest.mark.parametrize("against", plots.COSTS)
def test_pareto_plot_shows_deviations_and_the_papers_numbers(tmp_path, monkeypatch, against):
    figures = []
    new_figure = plots._new_figure

    def spy(*size):
        figures.append(new_figure(*size))
        return figures[-1]

    monkeypatch.setattr(plots, "_new_figure", spy)
    costs = {"params": 7, "gmacs": 8.0, "latency_ms": 9.0}
    rows = [
        Row(
            "1", "x", True, {"fid": 20.0}, deviations={"fid": 2.0}, published={"fid": 10.0}, **costs
        ),
        Row("2", "x", False, published={"fid": 15.0}, **costs),
    ]
    fid = Metric("fid", "FID", higher_is_better=False)
    plots.pareto(rows, fid, tmp_path / "pareto.png", against)
    [(figure, _)] = figures
    axes = figure.axes[0]
    assert axes.get_xlabel() == plots.COSTS[against][0]
    labels = {c.get_text() for c in axes.get_children() if isinstance(c, Annotation)}
    assert labels == {"1", "2 (paper)"}  # each row once
    hollow = [c for c in axes.collections if not len(c.get_facecolor()) and len(c.get_offsets())]
    drawn = sorted(tuple(c.get_offsets()[0]) for c in hollow if hasattr(c, "get_sizes"))
    assert drawn == [(costs[against], 10.0), (costs[against], 15.0)]
    [bars] = [c for c in axes.containers if hasattr(c, "has_yerr")]
    segment = bars.lines[2][0].get_segments()[0]
    assert segment[:, 1].tolist() == [18.0, 22.0]


def test_grey_hole():
    image = np.full((2, 2, 3), 9, np.uint8)
    hole = np.array([[True, False], [False, False]])
    assert plots.grey_hole(image, hole)[..., 0].tolist() == [[128, 9], [9, 9]]


def test_picture_grid_puts_each_crop_into_its_cell(tmp_path):
    colours = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]]], np.uint8)
    columns = [
        (f"a long title of column {index}", [np.tile(c, (32, 32, 1)) for c in column])
        for index, column in enumerate(colours)
    ]
    plots.picture_grid(columns, tmp_path / "grid.png")
    picture = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB"))
    height, width = picture.shape[:2]
    head = height - width  # two rows and two columns: what is over are the titles
    assert head > 0 and (picture[:head] < 128).any()
    for column, row in np.ndindex(2, 2):
        pixel = picture[head + (2 * row + 1) * width // 4, (2 * column + 1) * width // 4]
        assert np.array_equal(pixel, colours[column, row])


def test_picture_grid_refuses_ragged_columns(tmp_path):
    crop = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        plots.picture_grid([("a", [crop]), ("b", [crop, crop])], tmp_path / "grid.png")
    with pytest.raises(ValueError, match="grid"):
        plots.picture_grid([], tmp_path / "grid.png")
