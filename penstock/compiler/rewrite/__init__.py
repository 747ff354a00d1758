"""Graph rewrites: FX to FX, in place, one idea a file. :mod:`pipelines` says their order."""
