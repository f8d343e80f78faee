"""What `features` says: what this program knows, from its own tables, and what this kernel adds to it. Lifecycle; pure.

Source: runtime-spec 1.3, features.md and features-linux.md. "enabled" is about the program, whatever the machine has.
"""

from __future__ import annotations

from cycontainer.mount_options import KNOWN_OPTIONS
from cycontainer.tables import (
    CAPABILITIES,
    FILTER_FLAGS,
    HOOK_KINDS,
    MEMORY_POLICIES,
    MEMORY_POLICY_FLAGS,
    NAMESPACES,
    SECCOMP_ACTIONS,
    SECCOMP_ARCHITECTURES,
    SECCOMP_OPERATORS,
)
from cycontainer.units import ANNOTATION
from cycontainer.version import SPEC, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

OLDEST_SPEC: Final = "1.0.0"
CGROUP: Final = {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True}
ENABLED: Final = {"enabled": True}


def features(filter_flags: int, libseccomp: tuple[int, int, int] | None) -> dict[str, Any]:
    """The features as the specification's schema has them.

    Args:
        filter_flags: SECCOMP_FILTER_FLAG_* that the kernel knows.
        libseccomp: its version; None when it is missing, and no filter can be made.
    """
    annotations = {"io.github.cycontainer.version": VERSION}
    if libseccomp is not None:
        annotations["io.github.seccomp.libseccomp.version"] = ".".join(map(str, libseccomp))
    return {
        "ociVersionMin": OLDEST_SPEC,
        "ociVersionMax": SPEC,
        "hooks": list(HOOK_KINDS),
        "mountOptions": sorted(KNOWN_OPTIONS),
        "linux": {
            "namespaces": list(NAMESPACES),
            "capabilities": list(CAPABILITIES),
            "cgroup": CGROUP,
            "seccomp": _seccomp(filter_flags, libseccomp is not None),
            "apparmor": ENABLED,
            "selinux": ENABLED,
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "memoryPolicy": {"modes": list(MEMORY_POLICIES), "flags": list(MEMORY_POLICY_FLAGS)},
            "mountExtensions": {"idmap": ENABLED},
            "netDevices": ENABLED,
        },
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": [ANNOTATION],
    }


def _seccomp(filter_flags: int, there: bool) -> dict[str, Any]:
    if not there:
        return {"enabled": False}
    return {
        "enabled": True,
        "actions": list(SECCOMP_ACTIONS),
        "operators": list(SECCOMP_OPERATORS),
        "archs": list(SECCOMP_ARCHITECTURES),
        "knownFlags": list(FILTER_FLAGS),
        "supportedFlags": [name for name, bit in FILTER_FLAGS.items() if filter_flags & bit],
    }
