"""The memory of decoded pictures: it saves decoding and keeps to its budget."""

from pathlib import Path

import pytest
from PIL import Image

from moebius.data import pictures
from moebius.data.pictures import Pictures


def test_decoding_is_saved_and_the_least_used_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    decoded: list[str] = []
    for name in "abc":
        Image.new("RGB", (320, 160)).save(tmp_path / f"{name}.png")

    def load(path: Path) -> Image.Image:
        decoded.append(path.stem)
        return Image.open(path).convert("RGB")

    monkeypatch.setattr(pictures, "load_image", load)
    # Room for two resized pictures; a decoded one never fits and drives nothing out.
    kept = Pictures(budget=2 * 3 * 16 * 8)
    for name in "aabacab":
        assert kept.resized(tmp_path / f"{name}.png", 8).size == (16, 8)
    assert "".join(decoded) == "abcb"


def test_one_decoding_serves_every_size(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.new("RGB", (32, 16)).save(path)
    kept = Pictures()
    assert kept.resized(path, 8).size == (16, 8)
    path.unlink()
    assert kept.resized(path, 24).size == (48, 24)
