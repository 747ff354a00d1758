"""The commands of the XNNPACK example; thin, they call penstock."""
