"""Bytes on the disk."""

from pathlib import Path

import pytest

from moebius.operations.disk import disk_used, readable


def test_files_of_folders_add_up_and_links_count_for_themselves(tmp_path: Path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "inner" / "b").write_bytes(b"x" * 5)
    assert disk_used(tmp_path) == 15 and disk_used(tmp_path / "a") == 10
    (tmp_path / "loop").symlink_to(tmp_path)
    assert disk_used(tmp_path) < 15 + 10 + 5 + len(str(tmp_path))
    assert disk_used(tmp_path / "nowhere") == 0


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_449_000_000, "1.4 GB"), (999_700, "1.0 MB"),
     (123_456, "123 kB"), (5_000_000_000_000_000, "5000 TB")],
)  # fmt: skip
def test_sizes_are_readable(count: int, text: str):
    assert readable(count) == text
