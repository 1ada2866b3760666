"""Files made to run code, to fill the memory or to lead out of a folder, really read."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from moebius.config import load_yaml, override
from moebius.config.yaml_text import CHARACTERS
from moebius.data.manifest import read_records
from moebius.data.transforms import load_image, load_mask
from moebius.deploy.website import _extract
from moebius.distill.perceptual import _read as read_perceptual
from moebius.evaluation.benchmark import Benchmark
from moebius.evaluation.listing import by_stem, list_entries
from moebius.evaluation.weights import WeightsFile, read_weights
from moebius.inference.files import read_picture
from moebius.models.loading import load_denoiser
from moebius.models.released import read_tensors
from moebius.serving.uploads import Limits, decode_upload


class Payload:
    """What unpickling would run."""

    def __init__(self, mark: Path) -> None:
        self.command = f"touch {mark}"

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that a payload makes where it runs."""
    return tmp_path / "it_ran"


def test_the_payload_runs_where_it_is_unpickled(mark: Path):
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()


# --- pickles --------------------------------------------------------------------------------


def zipped(mark: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"diff_model.a": Payload(mark)}, file)
    return file.getvalue()


def legacy(mark: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"a": Payload(mark)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


SMALL: dict[str, Any] = {"widths": (32, 32, 32), "lcg_dim": 16, "context_dim": 8, "latent_size": 8}
FORGED = [zipped, legacy, lambda mark: pickle.dumps(Payload(mark))]


@pytest.mark.parametrize("forge", FORGED, ids=["zip", "legacy", "bare"])
@pytest.mark.parametrize("suffix", ["bin", "pt", "safetensors"])
def test_weights_run_nothing(tmp_path: Path, mark: Path, forge, suffix: str):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(forge(mark))
    readers: list[Callable[[], Any]] = [
        lambda: read_tensors(path),
        lambda: load_denoiser(path, **SMALL),
        lambda: read_perceptual(path),
        lambda: read_weights(WeightsFile(path, "0" * 64, True)),
    ]
    for read in readers:
        with pytest.raises(ValueError, match=path.name) as caught:
            read()
        assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
    assert not mark.exists()


def pickled_array(mark: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Payload(mark)], object), allow_pickle=True)
    return file.getvalue()


def test_pictures_of_a_trial_run_nothing(tmp_path: Path, mark: Path):
    """`moebius.sweeps.report` reads them by a plain `np.load`."""
    path = tmp_path / "pictures.npy"
    path.write_bytes(pickled_array(mark))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        np.load(path)
    assert not mark.exists()


# --- YAML -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system [touch {mark}]",
        "!!python/object/new:os.system [touch {mark}]",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/object:moebius.config.Strict {{}}",
    ],
)
def test_tags_make_no_objects(tmp_path: Path, mark: Path, tag: str):
    path = tmp_path / "mine.yaml"
    path.write_text(f"a: {tag.format(mark=mark)}\n")
    with pytest.raises(ValueError, match="mine.yaml is not valid YAML"):
        load_yaml(path)
    with pytest.raises(ValueError, match="override"):
        override({}, [f"a={tag.format(mark=mark)}"])
    assert not mark.exists()


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


MERGED = "a: &a {x: 1}\n" + "\n".join(
    f"b{n}: &b{n} {{<<: [{', '.join(['*a' if n == 0 else f'*b{n - 1}'] * 9)}]}}" for n in range(9)
)
DEEP = "a0: &a0 [1]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (laughs(10), "with its aliases it has more than"),
        (MERGED, "with its aliases it has more than"),
        (f"a: &a {'x' * 9_000}\nb: [{', '.join(['*a'] * 99)}]", "with its aliases"),
        (f"a: {'x' * CHARACTERS}", "it has more than"),
        (DEEP, "lie in each other"),
        ("a: &a [*a]", "an alias stands within what it stands for"),
        ("a: &a {b: [{c: *a}]}", "an alias stands within what it stands for"),
        ("[" * 5_000, "lie in each other"),
    ],
    ids=["laughs", "merged", "long", "large", "deep", "cycle", "far cycle", "brackets"],
)
def test_bombs_are_refused_before_they_unfold(tmp_path: Path, text: str, reason: str):
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"bomb.yaml is not valid YAML: .*{reason}"):
        load_yaml(path)


def test_aliases_that_unfold_to_little_are_read(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}\n" + laughs(3))
    assert load_yaml(path)["b"] == {"x": 1, "y": [{"x": 1}, {"x": 1}]}


# --- ways out of a folder -------------------------------------------------------------------


@pytest.mark.parametrize("key", ["image", "mask"])
@pytest.mark.parametrize("way", ["../../etc/passwd", "x/../../secret.png", ".."])
def test_a_manifest_leads_nowhere_that_it_does_not_name(tmp_path: Path, key: str, way: str):
    path = tmp_path / "set" / "set.jsonl"
    path.parent.mkdir()
    item = {"image": "a.png", "mask": "b.png", "category": "foreground", key: way}
    path.write_text(json.dumps(item))
    with pytest.raises(ValueError, match="leaves the manifest's folder"):
        read_records(path)


def test_a_manifest_may_name_whole_paths(tmp_path: Path):
    path = tmp_path / "set.jsonl"
    path.write_text('{"image": "/photos/a.png", "category": "background"}')
    assert read_records(path)[0].image == Path("/photos/a.png")


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "a/b", "", "a\x00"])
def test_an_evaluation_leads_nowhere(tmp_path: Path, name: str):
    line = {"id": name, "source": "a", "mask": "m", "image_sha256": "0", "mask_sha256": "0"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps({**line, "hole": 0.5}) + "\n")
    with pytest.raises(ValueError, match=r"manifest.jsonl:1: id: "):
        _ = Benchmark(tmp_path).names


def test_an_archive_is_read_by_name_and_writes_where_it_is_told(tmp_path: Path):
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as package:
        for name in ("../../outside", "package/dist/a.mjs"):
            member = tarfile.TarInfo(name)
            member.size = 1
            package.addfile(member, io.BytesIO(b"x"))
        link = tarfile.TarInfo("package/dist/b.mjs")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        package.addfile(link)
    out = tmp_path / "out"
    out.mkdir()
    with tarfile.open(archive) as package:
        _extract(package, "package/dist/a.mjs", out / "a.mjs")
        with pytest.raises(ValueError, match="has no package/dist/b.mjs"):
            _extract(package, "package/dist/b.mjs", out / "b.mjs")
    assert [path.name for path in out.iterdir()] == ["a.mjs"]
    assert not (tmp_path.parent / "outside").exists()


def test_onnx_weights_stay_in_their_folder(tmp_path: Path):
    """Moebius runs graphs by onnxruntime, which refuses weights outside the graph's folder."""
    onnx = pytest.importorskip("onnx")
    from moebius.deploy.onnx_files import open_session

    (tmp_path / "secret").write_bytes(bytes(16))
    (tmp_path / "set").mkdir()
    for place in ("../secret", str(tmp_path / "secret")):
        weight = onnx.TensorProto(name="w", dims=[4], data_type=1, data_location=1)
        for key, value in {"location": place, "offset": "0", "length": "16"}.items():
            weight.external_data.add(key=key, value=value)
        node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
        port = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [node], "g", [port("x", 1, [4])], [port("y", 1, [4])], [weight]
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
        model.ir_version = 8
        path = tmp_path / "set" / "crafted.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(Exception, match=r"(?i)external|absolute|outside|escape"):
            open_session(path)


# --- pictures that unfold -------------------------------------------------------------------


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes((1 + 3 * 8) * 8))
    chunks = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def read_upload(path: Path) -> Any:
    return decode_upload(path.read_bytes(), Limits(), "image")


BOMB = png(50_000, 50_000)
READERS = [load_image, load_mask, read_picture, read_upload]


@pytest.mark.parametrize("read", READERS)
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, read: Callable[[Path], Any], monkeypatch):
    """Training and evaluation, inference, and what comes over the network; nothing is decoded."""
    path = tmp_path / "bomb.png"
    path.write_bytes(BOMB)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="pixels"):
        read(path)


def text_bombs() -> dict[str, bytes]:
    """Chunks of some kilobytes that stand for 64 MiB."""
    packed = zlib.compress(bytes(64 << 20), 9)
    return {
        "zTXt": chunk(b"zTXt", b"k\0\0" + packed),
        "iTXt": chunk(b"iTXt", b"k\0\1\0\0\0" + packed),
        "iCCP": chunk(b"iCCP", b"n\0\0" + packed),
        "many": b"".join([chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20), 9))] * 70),
    }


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP", "many"])
@pytest.mark.parametrize("read", READERS)
def test_text_that_unfolds_is_refused_or_left_out(tmp_path: Path, read, kind: str):
    path = tmp_path / "text.png"
    path.write_bytes(png(8, 8, text_bombs()[kind]))
    try:
        picture = read(path)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
    else:
        kept = [value for value in picture.info.values() if isinstance(value, str | bytes)]
        assert all(len(value) <= 1 << 20 for value in kept)


def test_sides_are_measured_without_decoding(tmp_path: Path):
    from moebius.config import Images

    for name, data in (("bomb", BOMB), ("broken", b"\x89PNG\r\n\x1a\n" + b"x" * 40)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.png").write_bytes(data)
        images = Images(about="mine", count=1, min_side=8)
        with pytest.raises(ValueError, match=r"a\.png") as caught:
            list_entries(images, str(folder), None, None)
        assert len(str(caught.value).splitlines()) == 1


def test_two_names_of_one_stem_are_no_overwriting(tmp_path: Path):
    for name in ("a.png", "a.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="same stem"):
        by_stem(read_records(tmp_path))


def test_a_zip_is_no_picture(tmp_path: Path):
    path = tmp_path / "a.png"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../x", bytes(1 << 20))
    for read in READERS:
        with pytest.raises(ValueError):
            read(path)
