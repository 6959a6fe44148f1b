"""Kernels for GPUs in Triton, imported only where triton is. They have never run on a GPU.

What is known of them: under Triton's interpreter they agree with the reference, and they compile for sm_80, sm_90 and gfx942
without spills. No kernel has an atomic operation: each number is written by one program, so the output is deterministic
and statistics that are off leave nothing behind in the code.
"""
