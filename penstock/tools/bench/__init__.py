"""Measuring runtimes beside each other: processes that are kept alive, timed by turns."""
