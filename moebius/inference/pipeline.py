"""The inpainting pipeline, a diffusers `DiffusionPipeline`.

A saved pipeline is a folder in diffusers' own layout, all weights in safetensors:

    model_index.json  README.md  denoiser/  vae/  scheduler/

The way of a photograph: `photograph` and `masks` read it, `strategies` plans windows, `painter`
runs the model on their working copies, `refinement` repeats that in finer tiles, and `blending`
puts the holes back.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from moebius.inference.blending import Blend, check_blend
from moebius.inference.inputs import Picture, list_generators, list_images, list_masks
from moebius.inference.job import Job, copy_window, run_jobs
from moebius.inference.loading import find_model, read_parts, readable
from moebius.inference.masks import Mask, read_hole
from moebius.inference.model_card import CARD, model_card
from moebius.inference.painter import Painter
from moebius.inference.photograph import Photograph, read_photograph
from moebius.inference.results import OutputType, check_output_type, convert_output
from moebius.inference.strategies import Strategy, plan_windows
from moebius.models.codec import LatentCodec, load_codec
from moebius.models.denoiser import Denoiser
from moebius.models.modes import let_read
from moebius.models.optimized import KeptForm
from moebius.models.schedule import NOISE_OFFSET
from moebius.models.whole import load_whole

logger = logging.getLogger(__name__)

CallbackOnStepEnd = Callable[[DiffusionPipeline, int, int, dict[str, Any]], dict[str, Any] | None]
"""diffusers' convention: (pipeline, step, timestep, {"latents"}) -> what to replace of it."""

LATENT_MULTIPLE = 4
"""Latent sides that the denoiser accepts: its two downsamplings halve them evenly."""

GPU_BATCH = 8

CODEC_OPTIONS = ("use_safetensors", "low_cpu_mem_usage", "torch_dtype")


class InpaintPipeline(DiffusionPipeline):
    """Fill the holes of photographs and leave every other pixel as it is.

    Args:
        denoiser: predicts the noise; calls run its inference form, `Denoiser.optimized`.
        vae: the latent codec's autoencoder.
        scheduler: one of diffusers', see `moebius.models.schedule.build_scheduler`.
        max_side: side of the squares that the model works at; the one that the denoiser was
            trained at by default, and best there.
        guidance_scale: what a call uses when it names none; 1 for a denoiser whose foreground ids
            were never trained, 2.5 is the paper's for natural images, 2 for portraits.
        noise_offset: of the noise that sampling starts from, as in the denoiser's training.
        licence: of the weights, for the model card.
        provenance: where the weights came from, for the model card.

    Raises:
        ValueError: a `max_side` that the denoiser cannot work at.
    """

    denoiser: Denoiser
    vae: AutoencoderKL
    scheduler: SchedulerMixin

    def __init__(
        self,
        denoiser: Denoiser,
        vae: AutoencoderKL,
        scheduler: SchedulerMixin,
        max_side: int | None = None,
        guidance_scale: float = 2.5,
        noise_offset: float = NOISE_OFFSET,
        licence: str = "unknown",
        provenance: str = "unknown",
    ) -> None:
        super().__init__()
        self.register_modules(denoiser=denoiser, vae=vae, scheduler=scheduler)
        self.codec, self._form = LatentCodec(vae, name="pipeline"), KeptForm(Denoiser.optimized)
        multiple = self.codec.factor * LATENT_MULTIPLE
        if max_side is None:
            max_side = self.codec.factor * denoiser.architecture.latent_size
        if max_side < multiple or max_side % multiple:
            raise ValueError(f"max_side is {max_side}: use a multiple of {multiple}")
        self.register_to_config(
            max_side=max_side,
            guidance_scale=guidance_scale,
            noise_offset=noise_offset,
            licence=licence,
            provenance=provenance,
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        codec: str | None = None,
        variant: str | None = None,
        arch: Any = "lmi_dw_mixffn",
        **kwargs: Any,
    ) -> "InpaintPipeline":
        """Load a saved pipeline, a saved denoiser, or a released checkpoint.

        Args:
            pretrained_model_name_or_path: a folder, or a repository on the Hub; a folder is read
                without a network.
            codec: what `load_codec` takes, in place of the model's own. A denoiser alone needs it;
                a released checkpoint takes the folder `vae` beside it, or on the Hub PixelHacker's.
            variant: of a released repository or a folder in its layout, `ft_places2` say; else
                diffusers' variant of the weight files.
            arch: architecture of a released checkpoint, as `moebius.build` takes it.
            **kwargs: passed on to diffusers, `torch_dtype` say.

        Raises:
            ValueError: there is no such folder, or it holds no model that can be read.
        """
        name = str(pretrained_model_name_or_path)
        found = find_model(name, variant, kwargs.get("local_files_only", False))
        # Weights only from safetensors, and without the optional library accelerate.
        kwargs = {"use_safetensors": True, "low_cpu_mem_usage": False, **kwargs}
        if found.kind != "pipeline":
            return cls(**read_parts(found, codec, arch, **kwargs))
        if codec is not None:
            kwargs["vae"] = load_codec(codec, dtype=kwargs.get("torch_dtype")).vae
        with readable(name):
            if "vae" not in kwargs:
                own = {key: kwargs.get(key) for key in CODEC_OPTIONS}
                kwargs["vae"] = load_whole(
                    AutoencoderKL.from_pretrained, Path(found.place) / "vae", variant=variant, **own
                )
            return super().from_pretrained(found.place, variant=variant, **kwargs)

    def save_pretrained(self, save_directory: str | PathLike[str], **kwargs: Any) -> None:
        """Save in diffusers' layout, with a model card."""
        super().save_pretrained(save_directory, **kwargs)
        let_read(Path(save_directory))
        (Path(save_directory) / CARD).write_text(model_card(self.denoiser, self.vae, self.config))

    @property
    def side(self) -> int:
        """Side of the squares that the model works at, pixels."""
        return self.config["max_side"]

    @torch.no_grad()
    def __call__(
        self,
        image: Picture | Sequence[Picture],
        mask_image: Mask | Sequence[Mask],
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        strength: float = 1.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        num_images_per_prompt: int = 1,
        output_type: OutputType = "pil",
        callback_on_step_end: CallbackOnStepEnd | None = None,
        strategy: Strategy = "auto",
        blend: Blend = "feather",
        dilation: int | None = None,
        colour_compensation: bool = True,
        invert_mask: bool = False,
        fit_mask: bool = False,
        batch_size: int | None = None,
    ) -> ImagePipelineOutput:
        """Fill the white part of the mask.

        Args:
            image: one or several, of any sizes, 8 bits a channel: PIL pictures, of which the EXIF
                orientation is applied, or uint8 arrays.
            mask_image: as many, or one for all; white and opaque = fill. Pictures, (H, W) arrays,
                or lists of boxes (left, top, right, bottom) in pixels of the upright image.
            num_inference_steps: of the whole schedule.
            guidance_scale: 1 = no guidance; the model's own by default.
            strength: below 1, sampling starts from the noised image, hidden pixels included, and
                runs only the last int(steps x strength) steps; .99 is the release's.
            generator: on the CPU, one for all results in turn, or a list of one for each; each
                result then equals that of a call of its own. New and unseeded by default.
            num_images_per_prompt: results for each image.
            output_type: "pil"; "np" for (B, H, W, C) or "pt" for (B, C, H, W), floats in [0, 1].
            callback_on_step_end: diffusers' convention, with `latents`; steps count anew for every
                batch of windows.
            strategy: see `moebius.inference.strategies`.
            blend: see `moebius.inference.blending`.
            dilation: radius in pixels by which the hole grows, 0 for none; by default 1 % of the
                side of the window that it is worked on in, 5 in a window of 512.
            colour_compensation: shift what was made by its mean difference to the known pixels
                around the hole.
            invert_mask: fill what is not white instead.
            fit_mask: resize masks that have another size than their image.
            batch_size: windows that go through the model at once. By default 1 on a CPU, where no
                bit of a result then depends on the others, and 8 elsewhere.

        Returns:
            `images`, those of the first image first: of its upright size and mode, with its alpha
            and colour profile, equal to it outside the dilated hole.

        Raises:
            ValueError: anything wrong with an argument.
        """
        check_blend(blend)
        check_output_type(output_type)
        photos = [read_photograph(one) for one in list_images(image)]
        masks = list_masks(mask_image, len(photos))
        holes = [
            read_hole(mask, photo.size, invert=invert_mask, fit=fit_mask)
            for photo, mask in zip(photos, masks, strict=True)
        ]
        results = self._plan(
            photos,
            holes,
            list_generators(generator, len(photos), num_images_per_prompt),
            strategy,
            dilation,
        )
        if guidance_scale is None:
            guidance_scale = self.config["guidance_scale"]
        if batch_size is None:
            batch_size = 1 if self._execution_device.type == "cpu" else GPU_BATCH
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: use at least 1")
        with self.progress_bar(total=0) as bar:

            def announce(steps: int) -> None:
                bar.total += steps
                bar.refresh()

            def after_step(index: int, timestep: int, latents: torch.Tensor) -> torch.Tensor:
                bar.update()
                if callback_on_step_end is None:
                    return latents
                changed = callback_on_step_end(self, index, timestep, {"latents": latents})
                return (changed or {}).get("latents", latents)

            painter = Painter(
                self._form.of(self.denoiser),
                self.codec,
                copy.deepcopy(self.scheduler),
                self._execution_device,
                num_inference_steps,
                guidance_scale,
                self.config["noise_offset"],
                batch_size,
                after_step,
                announce,
            )
            run_jobs([job for _, jobs in results for job in jobs], painter, self.side, strength)
        pictures = [
            photo.with_patches(job.patch(blend, colour_compensation) for job in jobs)
            for photo, jobs in results
        ]
        return ImagePipelineOutput(images=convert_output(pictures, output_type))

    def _plan(
        self,
        photos: Sequence[Photograph],
        holes: Sequence[np.ndarray],
        generators: Sequence[Sequence[torch.Generator]],
        strategy: Strategy,
        dilation: int | None,
    ) -> list[tuple[Photograph, list[Job]]]:
        """What is to be done for each result; several of one photograph share working copies."""
        results = []
        for photo, hole, own in zip(photos, holes, generators, strict=True):
            windows = plan_windows(hole, side=self.side, strategy=strategy, dilation=dilation)
            if not windows:
                logger.warning("the mask is empty, nothing to fill: the image is returned as it is")
            copies = [copy_window(photo, hole, w, w.sides[0], self.side) for w in windows]
            pairs = list(zip(windows, copies, strict=True))
            for generator in own:
                results.append((photo, [Job(photo, hole, w, generator, c) for w, c in pairs]))
        return results
