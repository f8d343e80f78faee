"""The cgroup file systems; only compiled modules use it: see the .pxd."""
