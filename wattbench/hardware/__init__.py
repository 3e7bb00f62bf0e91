"""What machines can do and draw, what models ask of them, and the roofline between the two."""

from wattbench.hardware.detect import detect_cpu
from wattbench.hardware.model import ModelDescriptor, load_model, model_names
from wattbench.hardware.processes import is_this_machine, listening_process_ids
from wattbench.hardware.profile import Figure, MachineProfile, load_profile, profile_names
from wattbench.hardware.roofline import Roofline, StepCost, roofline

__all__ = [
    "Figure",
    "MachineProfile",
    "ModelDescriptor",
    "Roofline",
    "StepCost",
    "detect_cpu",
    "is_this_machine",
    "listening_process_ids",
    "load_model",
    "load_profile",
    "model_names",
    "profile_names",
    "roofline",
]
