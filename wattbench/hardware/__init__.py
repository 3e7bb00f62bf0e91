"""What machines can do and draw, what models ask of them, and the roofline between the two."""

from wattbench.hardware.detect import detect_cpu
from wattbench.hardware.model import ModelDescriptor
from wattbench.hardware.model_config import model_from_config
from wattbench.hardware.models import load_model, model_names
from wattbench.hardware.processes import is_this_machine, listening_process_ids
from wattbench.hardware.profile import Figure, MachineProfile, load_profile, profile_names
from wattbench.hardware.roofline import Roofline, StepCost, devices_needed, roofline

__all__ = [
    "Figure",
    "MachineProfile",
    "ModelDescriptor",
    "Roofline",
    "StepCost",
    "detect_cpu",
    "devices_needed",
    "is_this_machine",
    "listening_process_ids",
    "load_model",
    "load_profile",
    "model_from_config",
    "model_names",
    "profile_names",
    "roofline",
]
