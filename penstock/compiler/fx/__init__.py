"""Helpers on FX graphs: arguments, attributes, edits, origins, sizes. They know no delegate."""
