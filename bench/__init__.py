"""Measures the service beside a bare pipe and beside another client, in one run on one machine."""
