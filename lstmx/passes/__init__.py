"""Cells over time: outputs, histories, excerpts, gradients; in memory, on disk and over several devices."""
