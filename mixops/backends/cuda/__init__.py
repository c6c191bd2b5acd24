"""The CUDA backend: every mix of a plan is one launch of one kernel, on torch's current stream."""

from .engine import check_device, check_in_place, check_out, differentiated, dtype_name, run

__all__ = ["check_device", "check_in_place", "check_out", "differentiated", "dtype_name", "run"]
