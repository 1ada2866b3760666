"""Who may read saved weights: those whom the umask lets; safetensors asks for their owner alone."""

from pathlib import Path


def folder_mode(folder: str | Path) -> int:
    """What a file has that is made beside others: its folder's mode, but for searching it."""
    return Path(folder).stat().st_mode & 0o666


def let_read(folder: str | Path) -> None:
    """Gives weights in and below a folder its own mode."""
    for file in Path(folder).rglob("*.safetensors"):
        file.chmod(folder_mode(folder))
