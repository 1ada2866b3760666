"""Any mapping is a configuration or one line that says why not; so is any text of a file."""

import json
from pathlib import Path
from typing import Any

from fuzzing import RUNS, answer, mutated, mutated_texts, spliced_texts
from hypothesis import given

from moebius.config import Scoring, Sweep, load_yaml, override, parse
from moebius.models.architectures import resolve
from moebius.recipes import read_recipe, teacher_recipe
from moebius.scoring import read_protocol, resolve_protocol
from moebius.sweeps.trials import points, read_sweep

RECIPES: list[dict[str, Any]] = [
    {
        "arch": {"base": "lmi_dw_mixffn", "stages": [{"conv": "conv"}, {"self": "gla"}, {}]},
        "model": {"widths": [32, 64, 64], "latent_size": 8},
        "teacher": {"path": "there", "arch": "pixelhacker"},
        "data": {"size": 64, "short_side": [64, 96], "max_hole": 0.5, "cache": 8},
        "distill": {"losses": ["task", "fine"], "balance": "static", "static_weights": {"task": 1}},
        "optimizer": {"name": "adamw", "lr": 1e-3, "milestones": [2, 3], "ema": None},
        "training": {"steps": 5, "global_batch": 4, "micro_batch": 2, "precision": "bf16"},
        "validation": {"pairs": 2, "every": 2},
        "seed": 3,
        "plugins": ["json"],
    },
    {
        "arch": "lmi_dw_mixffn",
        "teacher": {"train": {"model": {"widths": [8, 8]}, "training": {"steps": 3}}},
        "codec": "builtin",
        "training": {"steps": 5, "global_batch": 4},
    },
]
ARCHITECTURES: list[dict[str, Any]] = [
    {
        "name": "mine",
        "stages": [
            {"width": 32, "depth": 1, "self": "gla", "cross": "cross_attention", "ffn": "ffn"},
            {"width": 64, "mixing": False, "conv": {"name": "conv"}},
        ],
        "middle": {"width": 64, "self": {"name": "local_lambda", "window": 7}},
        "latent_size": 8,
        "heads": 4,
    },
    {"base": "pixelhacker", "stages": [{"conv": "conv"}], "widths": [32], "depths": [1]},
    {"base": "lmi_dw_mixffn", "widths": [32, 64, 96], "lcg_dim": 16},
]
SWEEPS: list[dict[str, Any]] = [
    {
        "name": "listed",
        "recipe": {"extends": "builtin", "training": {"steps": 3}},
        "experiments": [
            {"label": "1", "overrides": {"arch": "gla_ca_conv_ffn", "distill.losses": ["task"]}},
            {"label": "2", "overrides": {"optimizer.lr": 0.1}},
        ],
        "seeds": [0, 1],
        "score": {"protocol": "builtin", "limit": 2, "metrics": ["psnr"]},
        "objective": {"metric": "psnr_hole", "mode": "max"},
        "promote": {"when": "params <= 250e6 and gmacs < 100", "overrides": {"training.steps": 9}},
        "resources": {"cpus": 1, "gpus": 0.5},
        "cluster_workers": "all",
        "published": "table2",
    },
    {
        "name": "searched",
        "recipe": "builtin",
        "search": {
            "space": {
                "optimizer.lr": {"loguniform": [1e-3, 0.1]},
                "data.max_hole": {"uniform": [0, 1]},
                "training.micro_batch": {"int": [1, 4]},
                "arch": {"choice": ["lmi_dw_ffn", "lmi_dw_mixffn"]},
            },
            "trials": 3,
            "second_objective": "params",
        },
        "scheduler": {"name": "asha", "grace": 4, "reduction": 2},
    },
    {
        "name": "scored",
        "model": {"source": "there", "arch": "lmi_dw_mixffn"},
        "grid": {"score.guidance": [1, 2.5], "score.steps": [2]},
        "score": {"protocol": {"title": "x"}},
    },
]
PROTOCOLS: list[dict[str, Any]] = [
    {
        "title": "Mine",
        "images": {"about": "pictures", "source": "photos", "count": 10, "ids": [1, 9]},
        "geometry": "crop",
        "size": 64,
        "masks": {
            "generator": "lama_medium_512",
            "area": [0.1, 0.5],
            "seed": 1,
            "published": {"about": "theirs", "white": "known", "pair": "order"},
        },
        "sampling": {"side": 64, "steps": 5, "guidance": 2, "start": "release"},
        "metrics": ["psnr", "ssim"],
        "reference": "table3/places2_small",
        "unspecified": ["all"],
    },
    {
        "title": "Cut",
        "images": {"about": "p", "count": 4, "crops": 2, "short_side": [64, 96], "min_side": 8},
        "geometry": "random_crop",
        "size": 64,
        "masks": {"generator": "lama_medium_512"},
        "metrics": ["psnr"],
    },
]
SCORINGS: list[dict[str, Any]] = [
    {"protocol": PROTOCOLS[0], "images": "photos", "steps": 3, "guidance": 0.5, "parity": True},
    {"protocol": "builtin", "white": "hole", "batch": 2, "metrics": ["psnr"], "device": "cpu"},
]
OVERRIDES = ("training.steps=3", "distill.losses=[a, {b: c}]", "arch.base=x", "a=b=c")


@RUNS
def test_any_recipe(fuzz):
    @fuzz
    @given(mutated(*RECIPES))
    def check(data: Any):
        recipe = answer(lambda: read_recipe(data))
        if recipe is None:
            return
        answer(lambda: resolve(recipe.arch, **recipe.model))
        answer(lambda: teacher_recipe(recipe))
        # What a run's folder keeps is the same recipe.
        kept = json.dumps(recipe.model_dump(mode="json", by_alias=True))
        again = read_recipe(json.loads(kept)).model_dump(mode="json", by_alias=True)
        assert json.dumps(again) == kept

    check()


@RUNS
def test_any_architecture(fuzz):
    @fuzz
    @given(mutated(*ARCHITECTURES))
    def check(data: Any):
        built = answer(lambda: resolve(data))
        if built is not None:
            assert resolve(built) == built

    check()


@RUNS
def test_any_sweep(fuzz):
    @fuzz
    @given(mutated(*SWEEPS))
    def check(data: Any):
        sweep = answer(lambda: parse(Sweep, data, "sweep mine"), "sweep mine")
        if sweep is not None:
            assert points(sweep) or sweep.search

    check()


@RUNS
def test_any_protocol(fuzz):
    @fuzz
    @given(mutated(*PROTOCOLS))
    def check(data: Any):
        answer(lambda: read_protocol(data))

    check()


@RUNS
def test_any_scoring(fuzz):
    @fuzz
    @given(mutated(*SCORINGS))
    def check(data: Any):
        scoring = answer(lambda: parse(Scoring, data, "score of mine"), "score of mine")
        if scoring is not None:
            answer(lambda: resolve_protocol(scoring))

    check()


@RUNS
def test_any_text_of_a_file(fuzz, tmp_path: Path):
    path = tmp_path / "mine.yaml"

    @fuzz
    @given(mutated_texts({"a": [1, {"b": "c"}]}, {"training": {"steps": 5}, "x": [0.5, None]}))
    def check(text: str):
        path.write_text(text, "utf-8", "replace")
        data = answer(lambda: load_yaml(path), str(path))
        assert data is None or isinstance(data, dict)

    check()


@RUNS
def test_any_sweep_file(fuzz, tmp_path: Path):
    path = tmp_path / "mine.yaml"

    @fuzz
    @given(mutated_texts({"name": "s", "recipe": "builtin", "grid": {"arch": ["a", "b"]}}))
    def check(text: str):
        path.write_text(text, "utf-8", "replace")
        answer(lambda: read_sweep(path, ["recipe.seed=1"]), str(path))

    check()


@RUNS
def test_any_override(fuzz):
    @fuzz
    @given(spliced_texts(*OVERRIDES))
    def check(text: str):
        data = answer(lambda: override(RECIPES[1], [text]), "override")
        if data is not None:
            answer(lambda: read_recipe(data))

    check()
