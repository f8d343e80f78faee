"""Cgroup directories by descriptor: for cgroups.pyx; Python sees nothing of it."""
