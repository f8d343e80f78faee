"""The version, once: the build, the command and the library read it here. Ground: it touches nothing."""

VERSION = "0.1.0"
