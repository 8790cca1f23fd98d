"""Runs conversations while it breaks what carries them, then checks every promise from the outside."""
