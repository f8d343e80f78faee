"""The version, once: the build, the command and the library read it here. Ground: it touches nothing."""

VERSION = "0.1.0"
SPEC = "1.3.0"  # of the runtime-spec
