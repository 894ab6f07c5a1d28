"""Loops over stretches of time, and over all prefixes at once."""
