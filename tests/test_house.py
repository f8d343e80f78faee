"""What the project holds itself to, counted: layers, lengths, names, the import budget, stubs, the init's link."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from glob import glob

import pytest
from elf import PF_W, PF_X, PT_DYNAMIC, PT_GNU_STACK, PT_INTERP, program_headers

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE = "cycontainer"

# From the ground up. A module may import from its own room and from those below; a directory's files are in its room.
ROOMS: dict[str, tuple[str, ...]] = {
    "ground": (
        "_steps",
        "_sys",
        "errors",
        "json_text",
        "record",
        "tables",
        "undo",
        "version",
        "init.sys",
        "init.state",
    ),
    "init": ("init",),
    "hot": (
        *(
            "_bpf",
            "_cgroup_parts",
            "_cgroupdevices",
            "_cgroupfs",
            "_cgroupkill",
            "_cgrouptree",
            "_clone",
            "_fd",
            "_listener",
            "_nsenter",
            "_plan",
            "_seccomp",
            "_seccomp_rules",
            "_seccomp_tree",
            "_unix",
            "_wait",
        ),
        *("cgroup_place", "cgroup_restore", "cgroups"),
    ),
    "model": (
        *("cgroup_layout", "config", "host", "node", "seccomp_profile", "spec"),
        *("read_config", "read_linux", "read_process", "read_resources", "read_seccomp"),
    ),
    "compile": (
        *(
            "compile",
            "confinement",
            "hook_plan",
            "identity",
            "namespaces",
            "plan",
            "resources",
            "rootfs",
            "trees",
            "mount_options",
            "sources",
            "template_tree",
        ),
        *("device_rules", "limits", "resources_v1", "resources_v2", "units"),
    ),
    "lifecycle": (
        *("cgroup_driver", "cgroup_entry", "cgroup_events", "cgroup_runs", "stats", "stats_json"),
        *("console", "criu", "hooks", "launch", "lifecycle", "notify", "process", "state", "state_text", "systemd"),
        *(
            "_arguments",
            "beside",
            "process_stat",
            "creation",
            "deletion",
            "duties",
            "errands",
            "execution",
            "handles",
            "launch_pad",
            "network_reuse",
            "starting",
            "stock",
            "supplies",
            "users",
            "streams",
            "updating",
            "upkeep",
        ),
        *("id_maps", "init_process", "intelrdt", "netdevices", "rtnetlink", "features", "seccomp_agent", "supervisor"),
    ),
    "faces": (
        "__init__",
        "__main__",
        "_answers",
        "_by_value",
        "_exceptions",
        "_plans",
        "_request",
        "_unit_run",
        "_result",
        "_run",
        "_running",
        "_spawned",
        "_stream",
        "_task",
        "_warm",
        "_work",
        "aio",
        "cli",
        "command",
        "executor",
        "pool",
        "pytest_plugin",
        "sandbox",
        "template",
    ),
}
RANK = {module: rank for rank, modules in enumerate(ROOMS.values()) for module in modules}

# Compiling is a pure function: nothing with which the machine could be asked or changed.
IMPURE = {"ctypes", "fcntl", "glob", "io", "mmap", "os", "platform", "resource", "select", "socket", "subprocess"}

# Milliseconds each; imported where they are used, if at all.
SLOW = {
    *(
        "argparse",
        "asyncio",
        "concurrent",
        "contextlib",
        "ctypes",
        "dataclasses",
        "email",
        "enum",
        "importlib.metadata",
    ),
    *("inspect", "logging", "pathlib", "pickle", "re", "shutil", "signal", "socket", "subprocess", "tempfile"),
    *("threading", "traceback", "typing", "unittest", "urllib"),
}
OWN_SUBJECT = {  # by a module's first or last name
    "_by_value": {"threading"},
    "aio": {"asyncio", "concurrent"},
    "executor": {"concurrent", "threading"},
    "facts": {"re"},
    "pool": {"threading"},
    "upkeep": {"threading"},
}

NOTHING_NAMES = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}
NOTHING_PREFIXES = ("do_", "handle_")

# there they become text, an answer, and what the one hears of for whom a thread or a loop works
WHERE_ERRORS_END = ("cli/__main__.py", "_task.py", "upkeep.py", "aio/containers.py", "aio/runs.py")

LONGEST_FILE = 500
LONGEST_FUNCTION = 60  # lines of code; about 40 is the aim
DEEPEST = 3
MOST_IGNORED_TYPES = 3
BIGGEST_INIT = 40 * 1024


def files(*suffixes: str) -> list[str]:
    """The package's files of these kinds, relative to the project."""
    found = glob(f"{ROOT}/{PACKAGE}/**", recursive=True)
    return sorted(os.path.relpath(path, ROOT) for path in found if path.endswith(suffixes))


def text_of(path: str) -> str:
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def module_of(path: str) -> str:
    """The dotted name below the package: "init.sys", "cli.kill", "_plan"."""
    return os.path.splitext(os.path.relpath(path, PACKAGE))[0].replace("/", ".")


def rank_of(module: str) -> int | None:
    """How high a module's room is; by its own name, or by its directory's."""
    return RANK.get(module, RANK.get(module.partition(".")[0]))


PYTHON = files(".py")
CYTHON = files(".pyx", ".pxd")
PARTS = [path for path in files(".pyx") if path.startswith(f"{PACKAGE}/_cgroup")]  # no modules: cgroup_parts.h
STUBBED = [path for path in files(".pyx") if os.path.dirname(path) == PACKAGE and path not in PARTS]


# --- layers


def imports(path: str) -> Iterator[str]:
    """The modules that a file imports or cimports, wherever in it that stands, by their full names."""
    if path.endswith(".py"):
        yield from python_imports(ast.parse(text_of(path)))
        return
    text = re.sub(r"\\\n", " ", text_of(path))
    for source, names in re.findall(r"^\s*from\s+([\w.]+)\s+c?import\s+(\([^)]*\)|.*)", text, re.MULTILINE):
        yield source
        yield from (f"{source}.{name}" for name in re.findall(r"\w+", names))
    yield from re.findall(r"^\s*c?import\s+([\w.]+)", text, re.MULTILINE)


def python_imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_modules(path: str) -> set[str]:
    """The package's modules among a file's imports."""
    known = {module_of(other) for other in files(".py", ".pyx", ".pxd")}
    inner = {name.removeprefix(f"{PACKAGE}.") for name in imports(path) if name.startswith(f"{PACKAGE}.")}
    return inner & known


@pytest.mark.parametrize("path", PYTHON + CYTHON)
def test_every_module_has_a_room_and_imports_point_down(path: str) -> None:
    rank = rank_of(module_of(path) if module_of(path) != "init.__init__" else "init")
    assert rank is not None, f"{path} has no room: give it one in ROOMS"
    upward = {name: other for name in own_modules(path) if (other := rank_of(name)) is None or other > rank}
    assert not upward, f"{path} is in room {list(ROOMS)[rank]} and imports from above: {sorted(upward)}"


@pytest.mark.parametrize("path", [path for path in PYTHON if module_of(path) in ROOMS["compile"]])
def test_what_compiles_cannot_ask_the_machine(path: str) -> None:
    assert not IMPURE & {name.partition(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", [path for path in CYTHON if path.startswith(f"{PACKAGE}/init/")])
def test_the_init_uses_no_python_and_no_libc(path: str) -> None:
    foreign = {name for name in imports(path) if not name.startswith((f"{PACKAGE}._steps", f"{PACKAGE}.init."))}
    assert not foreign
    assert not re.search(r"cdef extern from\s*<", text_of(path)), "C declarations come from the init's own headers"


@pytest.mark.parametrize("path", PARTS)
def test_what_the_command_shares_uses_no_python(path: str) -> None:
    functions = re.findall(r"^(?:cdef|def|cpdef|class) [^#\n]*\(.*", text_of(path), re.MULTILINE)
    assert functions and text_of(path).count("noexcept nogil:") == len(functions)


@pytest.mark.parametrize("path", [path for path in CYTHON if not path.startswith(f"{PACKAGE}/init/")])
def test_c_declarations_stand_in_one_file(path: str) -> None:
    if module_of(path) not in ("_sys", "_cgroup_parts"):
        assert not re.search(r'cdef extern from\s+["<]', text_of(path)), "declare it in _sys.pxd"


def constants_of(path: str) -> set[str]:
    """The texts in a module's tables and constants."""
    parts = [part for part in ast.parse(text_of(path)).body if isinstance(part, ast.Assign | ast.AnnAssign)]
    found = [part.value for assigned in parts for part in ast.walk(assigned) if isinstance(part, ast.Constant)]
    return {value for value in found if isinstance(value, str)}


def test_what_the_command_shares_with_python_it_does_not_say_itself() -> None:
    """facts.py writes it for the C from the tables and constants of the modules that it imports."""
    used = set(imports(f"{PACKAGE}/command/facts.py"))
    sources = [path for path in files(".py") if f"{PACKAGE}.{module_of(path)}" in used]
    shared = {text for path in sources for text in constants_of(path) if len(text) > 1}
    assert {"annotation", "outcome", "FROZEN", "file:"} <= shared
    for path in files(".c", ".h"):
        code = re.sub(r"/\*.*?\*/|^#include.*?$", "", text_of(path), flags=re.DOTALL | re.MULTILINE)
        assert not shared & set(re.findall(r'"((?:[^"\\\n]|\\.)*)"', code)), path


# --- lengths, depths, names


@pytest.mark.parametrize("path", [path for path in files(".py", ".pyx", ".pxd", ".c", ".h", ".S")])
def test_a_file_has_one_subject_and_says_it_first(path: str) -> None:
    text = text_of(path)
    assert text.count("\n") <= LONGEST_FILE, "it has two subjects"
    assert not text or text.startswith(('"""', "#", "/*", "//")), "the first line says what the file is about"


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef, text: str) -> int:
    """A function's lines without its docstring, comments and blank lines."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    lines = text.splitlines()[body[0].lineno - 1 : function.end_lineno]
    return sum(1 for line in lines if line.strip() and not line.strip().startswith("#"))


NESTING = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)


def depth(node: ast.AST, *, is_elif: bool = False) -> int:
    """How many blocks stand one in another; an `elif` is as deep as its `if`."""
    own = int(isinstance(node, NESTING) and not is_elif)
    below = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        below = max(below, depth(child, is_elif=isinstance(node, ast.If) and [child] == node.orelse))
    return own + below


@pytest.mark.parametrize("path", PYTHON)
def test_a_function_is_short_and_shallow(path: str) -> None:
    text = text_of(path)
    for function in functions(ast.parse(text)):
        place = f"{path}:{function.lineno} {function.name}"
        assert lines_of_code(function, text) <= LONGEST_FUNCTION, f"{place} is too long"
        assert depth(function) <= DEEPEST, f"{place} is too deep"
        positional = [
            arg.arg for arg in (*function.args.posonlyargs, *function.args.args) if arg.arg not in ("self", "cls")
        ]
        assert len(positional) <= 6, f"{place} takes too many positional parameters"


@pytest.mark.parametrize("path", PYTHON + CYTHON)
def test_nothing_is_named_for_nothing(path: str) -> None:
    words = set(re.split(r"[./_]", module_of(path)))
    assert not NOTHING_NAMES & words, f"{path}: what is in it?"
    names = re.findall(
        r"^\s*(?:async def|def|class|cdef class|cpdef|cdef) (?:[\w*]+ )*(\w+)(?=[(:])", text_of(path), re.MULTILINE
    )
    bad = [name for name in names if name.lower() in NOTHING_NAMES or name.startswith(NOTHING_PREFIXES)]
    assert not bad, f"{path}: {bad}"


# --- errors and types


def hides_errors(handler: ast.ExceptHandler) -> bool:
    """Whether it takes every error for its own; undoing something and raising it again is no hiding."""
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else {"all"}
    return bool({"all", "Exception", "BaseException"} & names) and not isinstance(handler.body[-1], ast.Raise)


@pytest.mark.parametrize("path", [path for path in PYTHON if not path.endswith(WHERE_ERRORS_END)])
def test_no_error_is_hidden(path: str) -> None:
    handlers = [node for node in ast.walk(ast.parse(text_of(path))) if isinstance(node, ast.ExceptHandler)]
    assert not [handler.lineno for handler in handlers if hides_errors(handler)]
    assert not [handler.lineno for handler in handlers if all(isinstance(node, ast.Pass) for node in handler.body)]


BROAD = re.compile(r"^( *)except(?: \(?(?:Base)?Exception\)?(?: as \w+)?)?:\n((?:\1 +.*\n|\n)+)", re.MULTILINE)


@pytest.mark.parametrize("path", CYTHON)
def test_no_error_is_hidden_in_compiled_code(path: str) -> None:
    bodies = [match[2] for match in BROAD.finditer(text_of(path))]
    assert not [body for body in bodies if not body.rstrip().rpartition("\n")[2].strip().startswith("raise")]


@pytest.mark.parametrize("path", files(".py", ".pyi"))
def test_an_ignored_type_error_has_its_code_and_its_reason(path: str) -> None:
    ignored = [line for line in text_of(path).splitlines() if "# type: ignore" in line]
    assert len(ignored) <= MOST_IGNORED_TYPES, "the type is wrong"
    assert all(re.search(r"# type: ignore\[[\w, -]+\]  # \S", line) for line in ignored), ignored


# --- what an import costs


def imported_at_run_time(body: list[ast.stmt]) -> Iterator[str]:
    """What importing the module imports: not what stands in functions or under TYPE_CHECKING."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from python_imports(node)
        elif isinstance(node, ast.If):
            checking = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            yield from imported_at_run_time(node.orelse if checking else node.body + node.orelse)
        elif isinstance(node, ast.ClassDef | ast.Try | ast.With):
            yield from imported_at_run_time(node.body)


@pytest.mark.parametrize("path", PYTHON)
def test_importing_a_module_imports_nothing_slow(path: str) -> None:
    names = set(imported_at_run_time(ast.parse(text_of(path)).body))
    slow = {name for name in names for part in (name, name.partition(".")[0]) if part in SLOW}
    own = {name for part in module_of(path).split(".") for name in OWN_SUBJECT.get(part, set())}
    assert not [name for name in slow if name.partition(".")[0] not in own]


def modules_after(statement: str) -> set[str]:
    """What a bare interpreter has imported after a statement, and not before."""
    program = f"""
import sys
sys.path.insert(0, {ROOT!r})
before = set(sys.modules)
{statement}
after = sorted(set(sys.modules) - before)
import json
print(json.dumps(after))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, capture_output=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_imports_nothing_else() -> None:
    assert modules_after("import cycontainer") == {"cycontainer"}


def test_importing_run_keeps_to_its_budget() -> None:
    modules = modules_after("from cycontainer import run")
    assert not modules & SLOW
    foreign = {name for name in modules if not name.startswith(PACKAGE)}
    assert len(foreign) <= 14, sorted(foreign)
    assert len(modules - foreign) <= 34, sorted(modules - foreign)


# What each may import; `checkpoint` asks criu only when it is to do something.
BUDGETS = {
    **dict.fromkeys(("start", "delete", "pause", "resume"), 27), "kill": 28, "state": 30, "list": 30, "update": 30,
    "ps": 29, "events": 31, "features": 29, "spec": 23, "checkpoint": 29,
}  # fmt: skip
SAID = {"features": {"cycontainer.mount_options", "cycontainer.units"}}  # what the verb tells of, and does not do


@pytest.mark.parametrize("verb", BUDGETS)
def test_a_verb_that_makes_no_process_imports_nothing_of_its_making(verb: str) -> None:
    modules = modules_after(f"import cycontainer.cli.__main__, cycontainer.cli.{verb}")
    assert not modules & SLOW
    making = {name for name in modules if rank_of(name.partition(".")[2]) == list(ROOMS).index("compile")}
    assert making == SAID.get(verb, set()) and "cycontainer.read_config" not in modules
    assert len(modules) <= BUDGETS[verb], sorted(modules)


@pytest.mark.parametrize(("verb", "most"), [("create", 35), ("run", 40), ("exec", 68)])
def test_a_verb_that_makes_a_process_keeps_to_its_budget(verb: str, most: int) -> None:
    modules = modules_after(f"import cycontainer.cli.__main__, cycontainer.cli.{verb}")
    assert not modules & SLOW and len(modules) <= most, sorted(modules)


@pytest.mark.parametrize("module", ["updating", "cgroup_events", "stats", "cli.ps", "creation"])
def test_who_does_not_end_a_container_imports_nothing_of_that(module: str) -> None:
    assert not modules_after(f"import cycontainer.{module}") & {"cycontainer.deletion", "cycontainer.starting"}


def test_type_checkers_and_the_importer_know_the_same_names() -> None:
    tree = ast.parse(text_of(f"{PACKAGE}/__init__.py"))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname or alias.name
        for node in ast.walk(blocks[0])
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    package = importlib.import_module(PACKAGE)
    assert seen == set(package._HOME) == set(package.__all__)
    assert seen <= set(dir(package))
    assert all(getattr(package, name) is not None for name in package._HOME)


# --- the compiled modules and their stubs


def stub_of(path: str) -> ast.Module:
    stub = os.path.splitext(path)[0] + ".pyi"
    assert os.path.exists(os.path.join(ROOT, stub)), f"{stub} is missing"
    return ast.parse(text_of(stub))


def stubbed(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """The public names that a stub's module or class declares."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return {name: node for name, node in found.items() if not name.startswith("_")}


def public(names: dict[str, object], module: str) -> dict[str, object]:
    """What is a module's own and public: no module, and nothing that another defined."""
    return {
        name: value
        for name, value in names.items()
        if not name.startswith("_") and not inspect.ismodule(value) and getattr(value, "__module__", module) == module
    }


def parameters_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[tuple[str, bool]]:
    """A declared function's parameters: name, and whether it has a default."""
    positional = [*node.args.posonlyargs, *node.args.args]
    required = len(positional) - len(node.args.defaults)
    found = [(argument.arg, index >= required) for index, argument in enumerate(positional)]
    keyword = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    return found + [(argument.arg, default is not None) for argument, default in keyword]


def parameters(value: object) -> list[tuple[str, bool]]:
    """The same of a compiled function."""
    signature = inspect.signature(value)  # type: ignore[arg-type]  # callable: the stub says that it is a function
    return [(name, each.default is not each.empty) for name, each in signature.parameters.items()]


@pytest.mark.parametrize("path", STUBBED)
def test_the_stub_says_what_the_module_has(path: str) -> None:
    name = f"{PACKAGE}.{module_of(path)}"
    module = importlib.import_module(name)
    real, declared = public(vars(module), name), stubbed(stub_of(path).body)
    assert sorted(real) == sorted(declared)
    for each, node in declared.items():
        if isinstance(node, ast.ClassDef):
            members = {key: value for key, value in vars(real[each]).items() if not key.startswith("_")}
            assert sorted(members) == sorted(stubbed(node.body)), each
            declared_methods = {key: value for key, value in stubbed(node.body).items()}
            compare_signatures(members, declared_methods)
    compare_signatures(real, declared)


@pytest.mark.parametrize("path", STUBBED)
def test_a_compiled_function_is_a_plain_one(path: str) -> None:
    """One of Cython's own takes longer to make: setup.py."""
    module = importlib.import_module(f"{PACKAGE}.{module_of(path)}")
    called = {name: value for name, value in public(vars(module), module.__name__).items() if callable(value)}
    functions = [name for name, value in called.items() if not isinstance(value, type)]
    assert all(inspect.isbuiltin(called[name]) for name in functions)


def compare_signatures(real: dict[str, object], declared: dict[str, ast.stmt]) -> None:
    for name, node in declared.items():
        if isinstance(node, ast.FunctionDef) and callable(real[name]):
            assert parameters(real[name]) == parameters_of(node), name


@pytest.mark.parametrize("path", files(".pyi"))
def test_a_stub_has_types(path: str) -> None:
    assert not [
        node.lineno for node in ast.walk(ast.parse(text_of(path))) if isinstance(node, ast.Name) and node.id == "Any"
    ]


# --- the init


@pytest.fixture(scope="module")
def init() -> str:
    path = f"{ROOT}/{PACKAGE}/init/init"
    assert os.path.exists(path), "make build"
    return path


def test_the_init_needs_no_symbol_from_anywhere(init: str) -> None:
    done = subprocess.run(["nm", "-u", init], check=True, capture_output=True, text=True)
    assert done.stdout == ""


def test_the_init_is_static(init: str) -> None:
    assert not {PT_INTERP, PT_DYNAMIC} & {kind for kind, _ in program_headers(init)}


def test_the_init_has_no_memory_that_is_both_written_and_executed(init: str) -> None:
    headers = program_headers(init)
    assert not [flags for _, flags in headers if flags & PF_W and flags & PF_X]
    assert [flags & PF_X for kind, flags in headers if kind == PT_GNU_STACK] == [0], "the stack is not executable"


def test_the_init_is_small(init: str) -> None:
    assert os.path.getsize(init) <= BIGGEST_INIT
