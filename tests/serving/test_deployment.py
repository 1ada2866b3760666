"""A small cluster under load: nothing is lost, and results are those of single calls."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from made_server import free_port, hole, make_model, photo, save_model

from moebius.serving import deployment
from moebius.serving.deployment import Service, deploy
from moebius.serving.uploads import Limits, encode_png
from moebius.train import start_ray

REQUESTS, CLIENTS = 40, 8
IMAGE, MASK = encode_png(photo()), encode_png(hole())


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that holds 5 requests: 2 being filled, 2 gathered, 1 in the queue."""
    pytest.importorskip("python_multipart", reason="pip install 'moebius-inpainting[serve]'")
    pytest.importorskip("fastapi", reason="pip install 'moebius-inpainting[serve]'")
    start_ray()
    import ray
    from ray import serve

    model = save_model(tmp_path_factory.mktemp("model"))
    try:
        yield deploy(
            Service(model, port=free_port(), batch=2, queue=1, limits=Limits(megabytes=0.1))
        )
    finally:
        serve.shutdown()
        ray.shutdown()


def post(address: str, **options: Any) -> Any:
    import requests

    return requests.post(f"{address}/inpaint", timeout=120, **options)


def files(image: bytes = IMAGE) -> dict[str, tuple[str, bytes]]:
    return {"image": ("photo.png", image), "mask": ("mask.png", MASK)}


@pytest.mark.ray
def test_a_load_loses_nothing_and_equals_single_calls(address: str):
    refused = threading.Semaphore(0)

    def ask(number: int) -> bytes:
        while True:
            answer = post(address, files=files(), data={"seed": number, "steps": 1 + number % 2})
            if answer.status_code != 429:
                assert answer.status_code == 200, answer.text
                assert answer.headers["content-type"] == "image/png"
                return answer.content
            assert answer.json() == {"error": "the queue is full, try again"}
            assert answer.headers["retry-after"] == "1"
            refused.release()
            time.sleep(0.2)

    with ThreadPoolExecutor(CLIENTS) as clients:
        results = list(clients.map(ask, range(REQUESTS)))
    assert refused.acquire(blocking=False), "the service never was full"
    pipeline = make_model()
    for number, result in enumerate(results):
        generator = torch.Generator().manual_seed(number)
        steps = 1 + number % 2
        single = pipeline(photo(), hole(), num_inference_steps=steps, generator=generator)
        assert encode_png(single.images[0]) == result


@pytest.mark.ray
@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        ({"files": files(b"text")}, 400, "the image is no picture that can be read"),
        ({"files": files(IMAGE[:2000])}, 400, "the image cannot be read (image file is truncated)"),
        ({"data": {"steps": "2"}}, 400, "the body is not multipart/form-data: send image and"),
        (
            {"data": b"--x", "headers": {"content-type": "multipart/form-data"}},
            400,
            "the body is not multipart/form-data that can be read",
        ),
        ({"files": files(), "data": {"steps": "many"}}, 400, "steps is 'many': use a number"),
        ({"files": files(bytes(10**6))}, 413, "the request has more than 0.264 megabytes"),
    ],
)
def test_a_bad_request_gets_one_line_and_harms_nobody(
    address: str, request_: dict[str, Any], status: int, reason: str
):
    answer = post(address, **request_)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(reason)
    assert post(address, files=files(), data={"steps": "1"}).status_code == 200


@pytest.mark.ray
def test_what_files_are_called_does_not_matter(address: str):
    plain = post(address, files=files(), data={"steps": "1"}).content
    for name in ("../../../etc/photo.png", "a\r\nb.png", "/etc/passwd", "x" * 2_000, "C:\\a\\b"):
        named = {"image": (name, IMAGE), "mask": (name, MASK)}
        answer = post(address, files=named, data={"steps": "1"})
        assert (answer.status_code, answer.content) == (200, plain), answer.text
    endless = {"image": ("x" * 50_000, IMAGE), "mask": ("mask.png", MASK)}
    answer = post(address, files=endless)
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "the body is not multipart/form-data that can be read"},
    )


@pytest.mark.ray
def test_health_counts_replicas_and_other_routes_are_refused(address: str):
    import requests

    health = requests.get(f"{address}/health", timeout=60)
    assert (health.status_code, health.json()) == (200, {"replicas": 1})
    assert requests.get(f"{address}/inpaint", timeout=60).status_code == 404


def test_without_the_library_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'moebius-inpainting\[serve\]'"):
        deploy(Service("model"))
