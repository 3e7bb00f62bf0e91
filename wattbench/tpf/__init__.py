"""Token Production Function: forms, fit, transfer, ceilings, levers."""
