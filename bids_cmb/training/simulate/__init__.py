"""Physically simulated scans: anatomy, susceptibility, field, signal, acquisition, products."""
