"""Checkpoint and restore through CRIU. Lifecycle: it opens, freezes, launches criu and answers it."""
