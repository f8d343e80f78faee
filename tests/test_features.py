"""`features` says what is so: valid against the specification's schema, and each name is one that is taken."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cycontainer._fd import known_filter_flags
from cycontainer._seccomp import compile_filter, filter_flags, version
from cycontainer.cli.__main__ import MANAGERS
from cycontainer.errors import ConfigError
from cycontainer.features import features
from cycontainer.host import current
from cycontainer.read_config import read_config
from cycontainer.spec import default_config

SCHEMAS = Path(__file__).parent / "data" / "runtime-spec" / "schema"
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
}  # fmt: skip


def problems(value: Any, schema: dict[str, Any], file: str, place: str = "") -> list[str]:
    """What a schema of draft 4 has against a value: of its keywords, those that the specification's schemas use."""
    if "$ref" in schema:
        name, _, pointer = schema["$ref"].partition("#")
        target: Any = json.loads((SCHEMAS / (name or file)).read_text())
        for step in pointer.strip("/").split("/"):
            target = target[step]
        return problems(value, target, name or file, place)
    unknown = schema.keys() - {
        "description", "$schema", "type", "properties", "required", "items", "enum", "pattern", "patternProperties",
    }  # fmt: skip
    assert not unknown, f"{file}: {unknown}"
    found: list[str] = []
    if "type" in schema and not isinstance(value, TYPES[schema["type"]]):
        return [f"{place}: is no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{place}: {value} is none of {schema['enum']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{place}: {value} is not like {schema['pattern']}")
    found += [f"{place}: {name} is missing" for name in schema.get("required", ()) if name not in value]
    for name, inner in schema.get("properties", {}).items():
        if isinstance(value, dict) and name in value:
            found += problems(value[name], inner, file, f"{place}.{name}")
    if isinstance(value, list) and "items" in schema:
        for number, each in enumerate(value):
            found += problems(each, schema["items"], file, f"{place}[{number}]")
    return found


def invalid(value: Any) -> list[str]:
    return problems(value, json.loads((SCHEMAS / "features-schema.json").read_text()), "features-schema.json")


def test_the_command_prints_what_the_schema_takes() -> None:
    command = [sys.executable, "-m", "cycontainer", "features"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    document = json.loads(done.stdout)
    assert invalid(document) == []
    assert document == features(known_filter_flags(), version())


def test_the_schema_would_say_what_is_wrong() -> None:
    found = features(known_filter_flags(), version())
    del found["ociVersionMax"]
    found["linux"]["namespaces"] = ["mnt"]
    found["linux"]["capabilities"] = ["CHOWN"]
    assert len(invalid(found)) == 3


def test_without_libseccomp_there_is_no_seccomp() -> None:
    assert features(known_filter_flags(), None)["linux"]["seccomp"] == {"enabled": False}


def test_every_cgroup_that_is_made_is_told() -> None:
    told = features(known_filter_flags(), None)["linux"]["cgroup"]
    assert told == {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True}
    assert "systemd" in MANAGERS  # what it takes for --cgroup-manager


def test_annotations_that_may_be_unsafe_are_told() -> None:
    assert features(known_filter_flags(), None)["potentiallyUnsafeConfigAnnotations"] == ["org.systemd.property."]


def test_every_option_of_a_mount_is_known() -> None:
    from cycontainer.mount_options import fold_options

    options = features(known_filter_flags(), None)["mountOptions"]
    config = default_config()
    config["mounts"] = [{"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": options}]
    (mount,) = read_config(config, bundle="/").mounts
    assert {"rro", "nosymfollow", "rbind", "tmpcopyup", "ridmap", "rslave"} <= set(options)
    assert {key for key, _ in fold_options(mount).data} <= {
        "sync",
        "async",
        "dirsync",
        "lazytime",
        "nolazytime",
        "mand",
        "nomand",
    }


def test_every_name_of_a_filter_is_taken() -> None:
    seccomp = features(known_filter_flags(), version())["linux"]["seccomp"]
    for name in seccomp["actions"]:
        rule = {"names": ["getppid"], "action": name, "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}
        config = default_config()
        config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ERRNO", "architectures": seccomp["archs"], "flags": seccomp["knownFlags"][:3],
            "syscalls": [rule], "listenerPath": "/run/agent",
        }  # fmt: skip
        checked = read_config(config, bundle="/").linux.seccomp
        assert checked is not None and compile_filter(checked, current().machine)
        assert filter_flags(checked) & 2
    with pytest.raises(ConfigError):
        read_config({**default_config(), "linux": {"seccomp": {"defaultAction": "SCMP_ACT_NONE"}}}, bundle="/")


def test_flags_that_the_kernel_does_not_know_are_not_supported() -> None:
    old = features(0b111, version())["linux"]["seccomp"]
    assert [name[20:] for name in old["supportedFlags"]] == ["TSYNC", "LOG", "SPEC_ALLOW"]
    assert [name[20:] for name in old["knownFlags"]] == ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"]
