"""Model descriptors by name or path: shipped files, files of one's own, Hugging Face configs."""

from __future__ import annotations

from pathlib import Path

from wattbench.documents import find_document, load_document, shipped_names
from wattbench.hardware.model import ModelDescriptor
from wattbench.hardware.model_config import CONFIG, model_from_config

FOLDER = "hardware_profiles/models"


def load_model(name_or_path: str) -> ModelDescriptor:
    """A shipped model descriptor by name, or any by path.

    A path may be a descriptor, a Hugging Face ``config.json``, or the folder of one.

    Raises:
        DocumentError: If there is none, or the file is wrong.
    """
    path = Path(name_or_path)
    if path.suffix == ".json" or (path / CONFIG).is_file():
        return model_from_config(path)
    others = f"a .yaml file, of a Hugging Face {CONFIG}, or of its folder"
    found = find_document(FOLDER, name_or_path, "model descriptor", others)
    return load_document(found, ModelDescriptor)


def model_names() -> list[str]:
    """Names of the shipped descriptors."""
    return shipped_names(FOLDER)
