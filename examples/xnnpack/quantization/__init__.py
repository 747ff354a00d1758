"""Quantizing without a delegate."""
