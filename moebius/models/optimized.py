"""The inference form of a denoiser: the same function, with what no step changes done once.

Its blocks are those of `moebius.models.inference_forms`; here, contexts are projected once.
"""

import logging
from collections.abc import Callable
from typing import Any, Generic

import torch
from torch import Tensor, nn

from moebius.blocks.products import Conv2d
from moebius.models.denoiser import Denoiser, DenoiserOutput
from moebius.models.fused_products import BFLOAT16
from moebius.models.graphed import Graphed
from moebius.models.inference_forms import Model, inference_form

logger = logging.getLogger(__name__)

RECOMPILES = 64
"""Shapes that a compiler takes one block's code in; ours have fewer than twenty."""
CONTEXTS = 8
"""Contexts that are kept: one for each batch of categories that a sampler alternates between."""


class OptimizedDenoiser(nn.Module):
    """A denoiser in its inference form, without gradients; `Denoiser.optimized` makes one.

    Args:
        denoiser: stays as it is. Weights that no form changes are shared with it: once it was
            trained on, make another form.
        dtype: of weights and work, `None` for the denoiser's own; inputs and outputs keep theirs.
        compiled: whether to run through `torch.compile`, as long as it works.
        graphed: whether to run through CUDA graphs, as long as that works.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        dtype: torch.dtype | None = None,
        compiled: bool = False,
        graphed: bool = False,
    ) -> None:
        super().__init__()
        self.architecture = denoiser.architecture
        model = inference_form(denoiser)
        self.lcg, self.unet = model.lcg, model.unet
        self.project = self.unet.encoder_hid_proj
        # Contexts are kept as they come out of it.
        self.unet.encoder_hid_proj = nn.Identity()  # type: ignore[assignment]
        if dtype is not None:
            self.to(_usable(dtype, denoiser.device))
        by_rows = denoiser.device.type == "cpu" and self.dtype == torch.float32
        for module in self.modules():
            # Products take weights as rows; channels-last ones would be copied to rows each step.
            if isinstance(module, nn.Conv2d) and not (by_rows and isinstance(module, Conv2d)):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._contexts: dict[tuple[Any, ...], Tensor] = {}
        self._faster: _Attempt | None = None
        if compiled:
            self._faster = _Attempt("torch.compile", _compiled(self.unet), self.unet)
        if graphed:
            plain = self._faster or self.unet
            self._faster = _Attempt("CUDA graphs", Graphed(plain), plain)
        self.eval()

    @torch.no_grad()
    def forward(
        self, sample: Tensor, timestep: Tensor | int, category_ids: Tensor
    ) -> DenoiserOutput:
        """As `Denoiser.forward`, without gradients."""
        steps = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        own = sample.to(self.dtype, memory_format=torch.channels_last)
        run = self._faster or self.unet
        noise, features, border = run(own, steps, self.context(category_ids))
        return DenoiserOutput(noise.to(sample.dtype), features, border)

    def context(self, category_ids: Tensor) -> Tensor:
        """The projected context of a batch of categories; the same object every time."""
        key = (tuple(category_ids.shape), *category_ids.flatten().tolist())
        if key not in self._contexts:
            if len(self._contexts) == CONTEXTS:
                self._contexts.clear()
            self._contexts[key] = self.project(self.lcg(category_ids))
        return self._contexts[key]

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and work."""
        return self.lcg.weight.dtype


class KeptForm(Generic[Model]):
    """A model's inference form, made when it is first asked for and after weights changed.

    Args:
        make: gives a model's form.
    """

    def __init__(self, make: Callable[[Model], nn.Module]) -> None:
        self._make = make
        self._form: nn.Module | None = None
        self._weights: list[tuple[Any, ...]] = []

    def of(self, model: Model) -> Any:
        """The form; or the model, where it trains or something follows its calls (hooks)."""
        hooks = model._forward_hooks or model._forward_pre_hooks
        if model.training or hooks or "forward" in vars(model):
            return model
        weights = [
            (id(t), t.data_ptr(), t.dtype, t.device, 0 if t.is_inference() else t._version)
            for t in (*model.parameters(), *model.buffers())
        ]
        if self._form is None or weights != self._weights:
            self._form, self._weights = self._make(model), weights
        return self._form


class _Attempt:
    """A faster way to run a function; where it fails, the function, after one line of notice."""

    def __init__(self, name: str, fast: Callable[..., Any], plain: Callable[..., Any]) -> None:
        self.name, self.run, self.plain = name, fast, plain

    def __call__(self, *inputs: Tensor) -> Any:
        if self.run is not self.plain:
            try:
                return self.run(*inputs)
            except Exception as error:  # whatever a backend raises; the inputs' own comes again
                reason = str(error).strip().partition("\n")[0]
                logger.warning("%s failed, going on without: %s", self.name, reason)
                self.run = self.plain
        return self.plain(*inputs)


def _compiled(model: nn.Module) -> Callable[..., Any]:
    """`torch.compile` of all of a model: its blocks share code, and beyond 8 shapes it gives up."""
    compiled = torch.compile(model)

    def run(*inputs: Tensor) -> Any:
        with torch._dynamo.config.patch(recompile_limit=RECOMPILES):
            return compiled(*inputs)

    return run


def _usable(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    if dtype == torch.bfloat16 and device.type == "cpu" and not BFLOAT16:
        logger.warning("this CPU has no bfloat16: the denoiser runs in float32")
        return torch.float32
    return dtype
