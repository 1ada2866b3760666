"""Ray Serve: a gate that reads requests, and replicas of the model that fill them in batches.

    GET /health      200 with the number of replicas that run, 503 without any
    POST /inpaint    multipart/form-data: image, mask, and seed, steps, guidance if wanted -> PNG

Errors are one line of JSON, {"error": ...}: 400 for what a client did wrong, 413 for a body that is
too long, 429 with Retry-After when the queue is full.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from moebius.serving.model import load_model
from moebius.serving.orders import Order, fill_orders, read_order
from moebius.serving.uploads import Limits
from moebius.train import Workers, fit_workers

APPLICATION, REPLICA, GATE = "moebius", "Replica", "Gate"
WAIT_S = 0.02
"""How long a batch waits for more."""
FORM_BYTES = 64_000
"""What a request may hold besides its two files."""


@dataclass(frozen=True)
class Service:
    """What is deployed.

    Attributes:
        model: see `InpaintPipeline.from_pretrained`; so is `codec`.
        device: of each replica.
        batch: requests that a replica takes at once.
        queue: requests that wait for a replica; more are refused.
    """

    model: str
    codec: str | None = None
    device: str = "cpu"
    replicas: int = 1
    host: str = "127.0.0.1"
    port: int = 7860
    batch: int = 4
    queue: int = 32
    max_steps: int = 100
    limits: Limits = field(default_factory=Limits)


class TooLarge(ValueError):
    """A body that was not read to its end."""


class Replica:
    """One copy of the model."""

    def __init__(self, service: Service) -> None:
        from ray import serve

        self.pipeline = load_model(service.model, service.codec, service.device)

        @serve.batch(max_batch_size=service.batch, batch_wait_timeout_s=WAIT_S)
        async def fill(orders: list[Order]) -> list[bytes | str]:
            # A thread, so that the next batch gathers meanwhile.
            return await asyncio.to_thread(fill_orders, self.pipeline, orders)

        self.fill = fill

    async def __call__(self, order: Order) -> bytes | str:
        """A PNG file, or what is wrong."""
        return await self.fill(order)


class Gate:
    """Reads and answers HTTP requests."""

    def __init__(self, service: Service, replicas: Any) -> None:
        self.service = service
        self.replicas = replicas

    async def __call__(self, request: Any) -> Any:
        """Routes one request; nothing that a client sends ends in a stack trace."""
        route = (request.method, request.url.path)
        if route == ("GET", "/health"):
            running = await asyncio.to_thread(running_replicas)
            return answer(200 if running else 503, {"replicas": running})
        if route == ("POST", "/inpaint"):
            return await self._inpaint(request)
        return answer(404, {"error": "use GET /health or POST /inpaint"})

    async def _inpaint(self, request: Any) -> Any:
        from ray.serve.exceptions import BackPressureError
        from starlette.responses import Response

        limits = self.service.limits
        try:
            files, fields = await read_form(request, 2 * limits.bytes + FORM_BYTES)
            order = await asyncio.to_thread(
                read_order, files, fields, limits, self.service.max_steps
            )
            result = await self.replicas.remote(order)
        except TooLarge as error:
            return answer(413, {"error": str(error)})
        except ValueError as error:
            return answer(400, {"error": str(error)})
        except BackPressureError:
            return answer(429, {"error": "the queue is full, try again"}, {"Retry-After": "1"})
        if isinstance(result, str):
            return answer(400, {"error": result})
        return Response(result, media_type="image/png")


async def read_form(request: Any, limit: int) -> tuple[dict[str, bytes], dict[str, str]]:
    """Files and fields of a multipart body.

    Raises:
        TooLarge: more than `limit` bytes; the rest is left unread.
        ValueError: no such body.
    """
    from starlette.formparsers import MultiPartException, MultiPartParser

    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ValueError("the body is not multipart/form-data: send image and mask as files")
    try:
        parser = MultiPartParser(
            request.headers, _limited(request.stream(), limit), max_files=2, max_fields=8
        )
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise ValueError("the body is not multipart/form-data that can be read") from error
    files, fields = {}, {}
    for name, value in form.items():
        if isinstance(value, str):
            fields[name] = value
        else:
            files[name] = await value.read()
    await form.close()
    return files, fields


async def _limited(stream: AsyncIterator[bytes], limit: int) -> AsyncGenerator[bytes, None]:
    total = 0
    async for chunk in stream:
        total += len(chunk)
        if total > limit:
            raise TooLarge(f"the request has more than {limit / 1e6:g} megabytes")
        yield chunk


def answer(status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
    """A JSON response."""
    from starlette.responses import Response

    return Response(json.dumps(content) + "\n", status, headers, "application/json")


def running_replicas() -> int:
    """Of the model, as the cluster sees it now."""
    from ray import serve

    application = serve.status().applications.get(APPLICATION)
    deployment = None if application is None else application.deployments.get(REPLICA)
    return 0 if deployment is None else deployment.replica_states.get("RUNNING", 0)


def deploy(service: Service) -> str:
    """Starts everything on the running cluster; returns the address once requests are served.

    Raises:
        ValueError: the cluster has too little, or Ray Serve is not installed.
        RuntimeError: a replica does not start.
    """
    check_installed()
    from ray import serve

    gpus = int(service.device == "cuda")
    workers = fit_workers(Workers(service.replicas, gpus=gpus))
    resources = {"num_cpus": workers.cpus, "num_gpus": gpus}
    # Twice a batch: one in the model, and the next being gathered.
    ongoing = 2 * service.batch
    replicas = serve.deployment(
        Replica,
        name=REPLICA,
        num_replicas=service.replicas,
        max_ongoing_requests=ongoing,
        max_queued_requests=service.queue,
        ray_actor_options=resources,
    ).bind(service)
    gate = serve.deployment(
        Gate,
        name=GATE,
        # Room to refuse in: what is more than replicas and queue hold gets its 429 here.
        max_ongoing_requests=4 * (service.queue + ongoing * service.replicas),
        ray_actor_options={"num_cpus": 0},
    ).bind(service, replicas)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    quiet = {"log_level": "ERROR", "enable_access_log": False}
    serve.start(http_options={"host": service.host, "port": service.port}, logging_config=quiet)
    serve.run(gate, name=APPLICATION, route_prefix="/", logging_config=quiet)
    return f"http://{service.host}:{service.port}"


def check_installed() -> None:
    """Raises ValueError where libraries of the extra `serve` are missing."""
    for name in ("ray", "fastapi", "python_multipart"):
        if find_spec(name) is None:
            raise ValueError(f"this needs {name}: pip install 'moebius-inpainting[serve]'")
