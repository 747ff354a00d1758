"""Registers the cases of all ATen kernels."""

from __future__ import annotations

import elementwise_cases
import indexing_cases
import kernel_shape_cases
import order_cases
import reduction_cases
import spatial_cases

FAMILIES = (
    elementwise_cases,
    indexing_cases,
    kernel_shape_cases,
    order_cases,
    reduction_cases,
    spatial_cases,
)
