import json
import logging

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from PIL import Image

from moebius.inference.masks import distance_to_hole
from moebius.inference.pipeline import InpaintPipeline
from moebius.models.optimized import OptimizedDenoiser

from .conftest import box_mask, load, photograph, run


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def changed(before, after) -> np.ndarray:
    """(H, W): where any channel differs."""
    different = np.asarray(before) != np.asarray(after)
    return different.any(axis=-1) if different.ndim == 3 else different


@pytest.mark.parametrize("size", [(64, 64), (97, 51), (20, 33), (400, 250)])
def test_any_size_is_filled_inside_the_dilated_hole_only(pipeline, size):
    image, mask = photograph(*size), box_mask(*size)
    result = run(pipeline, image, mask, dilation=3)
    assert result.size == size and result.mode == "RGB"
    distance = distance_to_hole(np.asarray(mask) > 0)
    assert not changed(image, result)[distance > 3].any()
    assert changed(image, result)[distance == 0].mean() > 0.9


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("blend", ["hard", "feather", "laplacian", "poisson"])
def test_modes_alpha_and_known_bytes_are_kept(pipeline, mode, blend):
    image, mask = photograph(150, 90), box_mask(150, 90)
    image = image.convert(mode.removesuffix("A"))
    if mode.endswith("A"):
        image.putalpha(Image.effect_noise(image.size, 90))
    result = run(pipeline, image, mask, blend=blend, dilation=4)
    assert result.mode == mode
    known = distance_to_hole(np.asarray(mask) > 0) > 4
    assert np.array_equal(np.asarray(result)[known], np.asarray(image)[known])
    assert changed(image, result)[~known].mean() > 0.5
    if mode.endswith("A"):
        assert result.getchannel("A").tobytes() == image.getchannel("A").tobytes()


@pytest.mark.parametrize("strategy", ["auto", "crop", "resize", "tile"])
def test_strategies_fill_every_hole_and_nothing_else(pipeline, strategy):
    image = photograph(300, 200)
    mask = [(10, 10, 30, 20), (200, 120, 290, 190)]
    options = {"strategy": strategy, "dilation": 2, "num_inference_steps": 3}
    result = run(pipeline, image, mask, **options)
    assert result.tobytes() == run(pipeline, image, mask, **options).tobytes()
    hole = np.zeros((200, 300), bool)
    for left, top, right, bottom in mask:
        hole[top:bottom, left:right] = True
        assert changed(image, result)[top:bottom, left:right].mean() > 0.9
    assert not changed(image, result)[distance_to_hole(hole) > 2].any()


def shapes_of(pipeline, *arguments, **options) -> list[tuple[int, ...]]:
    """What goes through the denoiser."""
    shapes = []
    handle = pipeline.denoiser.register_forward_pre_hook(
        lambda _, inputs: shapes.append(tuple(inputs[0].shape))
    )
    try:
        run(pipeline, *arguments, **options)
    finally:
        handle.remove()
    return shapes


def test_the_model_always_works_at_the_size_that_it_was_trained_at(pipeline):
    assert pipeline.side == 64
    for size in ((20, 33), (400, 250)):
        image, mask = photograph(*size), box_mask(*size)
        shapes = shapes_of(pipeline, image, mask, num_inference_steps=1, guidance_scale=1)
        assert {shape[1:] for shape in shapes} == {(9, 8, 8)}


def test_holes_far_apart_go_through_the_model_together_where_that_pays(pipeline):
    image, boxes = photograph(600, 400), [(20, 20, 40, 40), (500, 300, 520, 320)]
    options = {"num_inference_steps": 1, "guidance_scale": 2}
    assert shapes_of(pipeline, image, boxes, **options) == 2 * [(2, 9, 8, 8)]  # on a CPU
    assert shapes_of(pipeline, image, boxes, batch_size=8, **options) == [(4, 9, 8, 8)]


def test_the_seed_decides_and_the_hidden_pixels_do_not(pipeline):
    image, mask = photograph(100, 80), box_mask(100, 80)
    result = run(pipeline, image, mask)
    assert result.tobytes() == run(pipeline, image, mask).tobytes()
    assert result.tobytes() != run(pipeline, image, mask, seed=1).tobytes()
    assert run(pipeline, image, mask, generator=None) != run(pipeline, image, mask, generator=None)
    other = image.copy()
    other.paste((255, 0, 255), mask=mask)
    assert result.tobytes() == run(pipeline, other, mask).tobytes()


def test_other_holes_in_a_window_are_hidden_from_the_model_as_well(pipeline):
    image, boxes = photograph(300, 200), [(100, 60, 120, 80), (100, 120, 110, 130)]
    other = image.copy()
    for box in boxes:
        other.paste((255, 0, 255), box)
    assert run(pipeline, image, boxes).tobytes() == run(pipeline, other, boxes).tobytes()


def test_what_lies_under_the_dilation_is_hidden_from_the_model_too(pipeline):
    image, boxes = photograph(300, 200), [(100, 60, 120, 80)]
    other = image.copy()
    other.paste((255, 0, 255), (94, 54, 126, 86))
    options = {"dilation": 10, "blend": "hard"}
    first, second = (run(pipeline, i, boxes, **options) for i in (image, other))
    assert first.tobytes() == second.tobytes()


def test_specks_in_windows_that_overlap_are_all_filled(pipeline):
    """One window's patch must not cover what another has filled."""
    image, boxes = (
        photograph(300, 200),
        [(x, 50 + x // 5, x + 3, 53 + x // 5) for x in range(20, 250, 25)],
    )
    result = run(pipeline, image, boxes, dilation=6)
    for left, top, right, bottom in boxes:
        assert changed(image, result)[top:bottom, left:right].any()


def test_below_full_strength_the_hidden_pixels_count(pipeline):
    image, mask = photograph(64, 64), box_mask(64, 64)
    other = image.copy()
    other.paste((255, 0, 255), mask=mask)
    options = {"strength": 0.5, "num_inference_steps": 4}
    assert run(pipeline, image, mask, **options) != run(pipeline, other, mask, **options)
    steps = []
    run(pipeline, image, mask, callback_on_step_end=lambda *a: steps.append(a[2]), **options)
    assert steps == [250, 0]


def test_every_result_of_a_batch_is_that_of_a_call_of_its_own(pipeline):
    images = [photograph(64, 64), photograph(200, 100).convert("L")]
    masks = [box_mask(64, 64), [(10, 10, 30, 30), (150, 60, 170, 80)]]
    options = {"num_inference_steps": 2, "num_images_per_prompt": 2}
    together = pipeline(images, masks, generator=generators(1, 2, 3, 4), **options).images
    alone = [
        run(pipeline, images[n // 2], masks[n // 2], seed=n + 1, num_inference_steps=2)
        for n in range(4)
    ]
    assert [image.tobytes() for image in together] == [image.tobytes() for image in alone]
    batched = pipeline(images, masks, generator=generators(1, 2, 3, 4), batch_size=3, **options)
    for one, other in zip(batched.images, alone, strict=True):
        # A batch rounds otherwise.
        difference = np.asarray(one).astype(int) - np.asarray(other)
        assert abs(difference).max() <= 1


def test_one_generator_serves_all_results_in_turn(pipeline):
    image, mask = photograph(64, 64), box_mask(64, 64)
    generator = torch.Generator().manual_seed(0)
    several = pipeline(
        image, mask, num_inference_steps=2, generator=generator, num_images_per_prompt=3
    ).images
    assert len({picture.tobytes() for picture in several}) == 3
    assert several[0].tobytes() == run(pipeline, image, mask).tobytes()


def test_global_random_states_are_left_alone(pipeline):
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    pipeline(photograph(64, 64), box_mask(64, 64), num_inference_steps=1)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])


@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_schedulers_of_diffusers_give_similar_pictures(pipeline, kind, tmp_path):
    other = InpaintPipeline(
        pipeline.denoiser, pipeline.vae, kind.from_config(pipeline.scheduler.config)
    )
    other.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert isinstance(loaded.scheduler, kind)
    image, mask = photograph(64, 64), box_mask(64, 64)
    options = {"num_inference_steps": 8, "guidance_scale": 1}
    ddim, result = (np.asarray(run(p, image, mask, **options)) for p in (pipeline, loaded))
    hole = np.asarray(mask) > 0
    assert abs(ddim[hole].astype(int) - result[hole]).mean() < 8


def test_calls_leave_the_scheduler_as_it_is(pipeline):
    """So that calls in several threads do not disturb each other."""
    steps = pipeline.scheduler.timesteps.clone()
    run(pipeline, photograph(64, 64), box_mask(64, 64))
    assert torch.equal(pipeline.scheduler.timesteps, steps)


def test_exif_orientation_is_applied(pipeline, tmp_path):
    upright = photograph(96, 64)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    turned = Image.open(tmp_path / "turned.png")
    assert turned.size == (64, 96)
    result = run(pipeline, turned, box_mask(96, 64))
    assert result.tobytes() == run(pipeline, upright, box_mask(96, 64)).tobytes()


def test_a_model_brings_its_own_guidance_and_noise(pipeline, tmp_path):
    parts = (pipeline.denoiser, pipeline.vae, pipeline.scheduler)
    InpaintPipeline(*parts, guidance_scale=1.0, noise_offset=0.5).save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert loaded.config.noise_offset == 0.5
    batches = []
    loaded.denoiser.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    picture, mask = photograph(64, 64), box_mask(64, 64)
    loaded(picture, mask, num_inference_steps=1)
    loaded(picture, mask, num_inference_steps=1, guidance_scale=2.0)
    assert batches == [1, 2]
    assert run(loaded, picture, mask) != run(pipeline, picture, mask, guidance_scale=1.0)


def test_empty_mask_returns_the_input_and_says_so(pipeline, caplog):
    image = photograph(40, 30)
    with caplog.at_level(logging.WARNING, logger="moebius"):
        result = run(pipeline, image, Image.new("L", (40, 30), 127))
    assert result.tobytes() == image.tobytes() and "mask is empty" in caplog.text
    assert run(pipeline, image, Image.new("L", (40, 30), 255), invert_mask=True) == image


@pytest.mark.parametrize("blend", ["feather", "poisson"])
@pytest.mark.parametrize("strategy", ["auto", "resize", "tile"])
def test_a_mask_of_everything_makes_a_new_picture(pipeline, blend, strategy):
    image = photograph(150, 100)
    result = run(pipeline, image, np.ones((100, 150), bool), blend=blend, strategy=strategy)
    assert changed(image, result).mean() > 0.9


def test_a_list_of_pictures_may_share_a_mask(pipeline):
    images = [photograph(64, 64), photograph(64, 64).rotate(90)]
    results = pipeline(images, [(20, 20, 40, 40)], num_inference_steps=1).images
    for before, after in zip(images, results, strict=True):
        assert changed(before, after)[20:40, 20:40].mean() > 0.9


def test_masks_of_another_size_are_fitted_where_asked(pipeline):
    image = photograph(64, 64)
    result = run(pipeline, image, box_mask(32, 32), fit_mask=True)
    assert result.tobytes() == run(pipeline, image, box_mask(64, 64)).tobytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_image": box_mask(30, 40)}, "mask is 30x40.*image 40x30"),
        ({"mask_image": [box_mask(40, 30)] * 2}, "2 masks for 1 images"),
        ({"image": Image.new("I;16", (40, 30))}, "'I;16'.*8 bits"),
        ({"output_type": "jpeg"}, "'jpeg'.*'pil', 'np' or 'pt'"),
        ({"strategy": "zoom"}, "'zoom' is unknown"),
        ({"blend": "soft"}, "'soft' is unknown"),
        ({"dilation": -1}, "dilation is -1"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"strength": 0.1, "num_inference_steps": 2}, "leaves none"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"generator": generators(0, 1)}, "2 generators for 1 results"),
    ],
)
def test_bad_inputs_are_refused(pipeline, options, message):
    given = {"image": photograph(40, 30), "mask_image": box_mask(40, 30)}
    with pytest.raises(ValueError, match=message):
        pipeline(**given | options)


def test_sides_that_the_model_cannot_work_at_are_refused(pipeline):
    parts = (pipeline.denoiser, pipeline.vae, pipeline.scheduler)
    assert InpaintPipeline(*parts, max_side=96).side == 96
    for side in (100, 0):
        with pytest.raises(ValueError, match=f"max_side is {side}: use a multiple of 32"):
            InpaintPipeline(*parts, max_side=side)


def test_arrays_and_tensors_hold_the_same_picture(pipeline):
    image, mask = photograph(64, 32), box_mask(64, 32)
    array = run(pipeline, image, mask, output_type="np")
    assert array.shape == (32, 64, 3) and array.dtype == np.float32
    assert np.array_equal((array * 255).round(), np.asarray(run(pipeline, image, mask)))
    tensor = run(pipeline, np.asarray(image), mask, output_type="pt")
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), array)


def test_callback_follows_the_convention_of_diffusers(pipeline):
    steps = []

    def callback(pipe, index, timestep, tensors):
        assert pipe is pipeline and set(tensors) == {"latents"}
        steps.append((index, timestep))
        return {"latents": torch.zeros_like(tensors["latents"])}

    image, mask = photograph(64, 32), box_mask(64, 32)
    first = run(pipeline, image, mask, callback_on_step_end=callback)
    assert steps == [(0, 500), (1, 0)]
    second = run(pipeline, image, mask, seed=1, callback_on_step_end=callback)
    assert first.tobytes() == second.tobytes()  # latents were replaced at the last step
    silent = run(pipeline, image, mask, callback_on_step_end=lambda *_: None)
    assert silent.tobytes() == run(pipeline, image, mask).tobytes()


def test_saved_and_loaded_pipelines_agree(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["denoiser"] == ["moebius.models.denoiser", "Denoiser"]
    assert not list(tmp_path.rglob("*.bin"))
    loaded = InpaintPipeline.from_pretrained(tmp_path)
    image, mask = photograph(97, 51), box_mask(97, 51)
    assert run(loaded, image, mask).tobytes() == run(pipeline, image, mask).tobytes()
    assert loaded.config.max_side == 64


def test_calls_run_the_denoisers_inference_form(pipeline, monkeypatch):
    image, mask = photograph(64, 64), box_mask(64, 64)
    plain, calls = run_plain(pipeline, image, mask), []
    forward = OptimizedDenoiser.forward
    monkeypatch.setattr(
        OptimizedDenoiser, "forward", lambda *args: calls.append(1) or forward(*args)
    )
    fast = run(pipeline, image, mask)
    assert len(calls) == 2
    assert abs(np.asarray(fast).astype(int) - np.asarray(plain)).max() <= 1


def run_plain(pipeline, *arguments):
    """With a hook, the denoiser runs as it is."""
    handle = pipeline.denoiser.register_forward_hook(lambda *_: None)
    try:
        return run(pipeline, *arguments)
    finally:
        handle.remove()
