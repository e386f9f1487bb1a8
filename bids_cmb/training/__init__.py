"""Simulation and training. The main job never imports this package."""
