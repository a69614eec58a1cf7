"""What every module here agrees on; imports no engine, so that an engine's own process stays its own."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# In the order of the tables' rows in model.onnx.
MODALITIES = ("ct", "mr")
OURS = "gantry"


class Unsupported(Exception):
    """What a peer, or the reader of our file, cannot express; the message is the reason that the report prints."""


class Failed(Exception):
    """An engine gave no number; the message is the reason, without this machine's folders."""

    def __init__(self, reason):
        super().__init__(reason.replace(f"{ROOT}/", ""))


def requirements():
    """Package to version, of requirements.txt."""
    lines = (Path(__file__).parent / "requirements.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))
