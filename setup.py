"""Builds the extension modules, the freestanding init that they launch, and the compiled command.

`python setup.py build_ext --inplace` makes all; what is unchanged is not made again. $CC is the compiler of all:
`CC=aarch64-linux-gnu-gcc` cross-compiles; $INIT_CC is another one for the init, which has no libc. `build_scripts`
makes the command that pip installs.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from distutils.command.build_scripts import build_scripts  # setuptools' own
from distutils.command.install_data import install_data
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE, INIT, COMMAND = "cycontainer", "cycontainer/init", "cycontainer/command"
PARTS = sorted(glob(f"{PACKAGE}/_cgroup*.pyx"))  # of `cgroups` and of the command: cgroup_parts.h
GENERATED = "build/c"  # the C that Cython writes

# Functions are the interpreter's plain ones, and have their signatures with their docstrings: to make one of Cython's
# own for each takes up to half of a module's import.
DIRECTIVES = {
    "language_level": 3, "boundscheck": False, "wraparound": False, "cdivision": True,
    "binding": False, "embedsignature": True, "embedsignature.format": "clinic",
}  # fmt: skip

# What Cython's own output trips is left out: parameters of slots, and names kept for other configurations.
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function", "-Wno-missing-field-initializers"]
COMPILE = ["-O2", "-g0", "-fvisibility=hidden", "-include", "limited_api.h", *WARNINGS]

# A free-threaded CPython has no limited API before 3.15.
ABI3 = not sysconfig.get_config_var("Py_GIL_DISABLED")

# No libc is there to hold a thread pointer (stack protector) or to be called (builtins); no unwinder reads tables;
# a section for each function, so that the link drops what Cython writes for a module that Python would import.
FREESTANDING = [
    "-O2", "-g0", "-ffreestanding", "-fno-stack-protector", "-fno-pic", "-fno-builtin", "-ffunction-sections",
    "-fdata-sections", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", *WARNINGS,
]  # fmt: skip

# Static and without libraries: one Python object in the init, and the link fails with the undefined symbol's name.
LINK = [
    "-static", "-nostdlib", "-no-pie", "-s", "-Wl,--gc-sections", "-Wl,-e,_start", "-Wl,-z,noexecstack",
    "-Wl,--build-id=none",
]  # fmt: skip

# The command reads files that others may have damaged, as root.
HOSTED = ["-O2", "-g0", "-fPIC", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-fvisibility=hidden",
          "-ffunction-sections", "-fdata-sections", *WARNINGS]  # fmt: skip
LINK_HOSTED = ["-pie", "-s", "-Wl,--gc-sections", "-Wl,--as-needed", "-Wl,-z,relro", "-Wl,-z,now",
               "-Wl,-z,noexecstack", "-Wl,--build-id=none"]  # fmt: skip


SHARED = {  # what a shell and man(1) look for, below an installation's prefix: what prints it
    "share/man/man1/cycontainer.1": ["manual.py"],
    "share/bash-completion/completions/cycontainer": ["completions.py", "bash"],
    "share/zsh/site-functions/_cycontainer": ["completions.py", "zsh"],
    "share/fish/vendor_completions.d/cycontainer.fish": ["completions.py", "fish"],
}


def extensions(sources: list[str]) -> list[Extension]:
    """The modules of .pyx files, named by their paths."""
    return [
        Extension(
            os.path.splitext(source)[0].replace("/", "."),
            [source],
            include_dirs=[PACKAGE, INIT],
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if ABI3 else [],
            py_limited_api=ABI3,
            extra_compile_args=COMPILE,
            extra_link_args=["-s", "-Wl,--gc-sections"],
        )
        for source in sorted(sources)
    ]


def newer(sources: list[str], target: str) -> bool:
    """Whether `target` is missing or older than any of its sources."""
    if not os.path.exists(target):
        return True
    made = os.stat(target).st_mtime_ns
    return any(os.stat(source).st_mtime_ns > made for source in sources)


def to_c(modules: list[Extension], *, force: bool) -> None:
    """Have Cython write the C of the modules that changed, and name it as their sources."""
    from Cython.Build import cythonize  # not at the top: reading the project's metadata needs no compiler

    made = cythonize(  # type: ignore[no-untyped-call]  # Cython has no types for it
        modules,
        build_dir=GENERATED,
        compiler_directives=DIRECTIVES,
        include_path=["."],
        force=force,
        nthreads=os.cpu_count() or 1,
        show_all_warnings=False,
    )
    for module, result in zip(modules, made, strict=True):
        module.sources, module.depends = result.sources, [*result.depends, f"{PACKAGE}/limited_api.h"]


def compiler_and_machine(*variables: str) -> tuple[list[str], str]:
    """The first compiler that is set, and a name for what it makes: for another machine it is called otherwise."""
    compiler = shlex.split(next(filter(None, map(os.environ.get, variables)), "cc"))
    return compiler, "-".join([os.path.basename(word) for word in compiler])


def place(built: str, target: str) -> None:
    """Copy it whole, also while the old one is being executed."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copy2(built, f"{target}.new")
    os.replace(f"{target}.new", target)


def compile_all(sources: list[str], directory: str, headers: list[str], flags: list[str]) -> list[str]:
    """The objects of C sources, in a directory; what is unchanged is not made again."""
    os.makedirs(directory, exist_ok=True)
    objects = [f"{directory}/{os.path.basename(source)}.o" for source in sources]
    for source, made in zip(sources, objects, strict=True):
        if newer([source, *headers, __file__], made):
            subprocess.run([*compiler_and_machine("CC")[0], *flags, "-c", source, "-o", made], check=True)
    return objects


def build_parts() -> list[str]:
    """The objects of what `cgroups` and the command share."""
    parts = extensions(PARTS)
    to_c(parts, force=False)
    include = [f"-I{path}" for path in (PACKAGE, sysconfig.get_path("include"))]
    directory = f"build/parts-{compiler_and_machine('CC')[1]}"
    sources = [str(source) for part in parts for source in part.sources]
    return compile_all(sources, directory, glob(f"{PACKAGE}/*.h"), [*HOSTED, "-DCYTHON_NO_PYINIT_EXPORT", *include])


def build_command(target: str, tree: str = "") -> None:
    """Compile and link the command; `tree` is the source tree whose package it shall use, if it is not beside it."""
    compiler, machine = compiler_and_machine("CC")
    directory = f"build/command-{machine}{'-tree' if tree else ''}"
    os.makedirs(directory, exist_ok=True)
    subprocess.run([sys.executable, f"{COMMAND}/facts.py", f"{directory}/facts.h"], check=True)
    defined = [f"-DTREE={json.dumps(tree)}"] if tree else []
    headers = [*glob(f"{COMMAND}/*.h"), *glob(f"{PACKAGE}/*.h"), f"{directory}/facts.h"]
    flags = [*HOSTED, *defined, f"-I{directory}", f"-I{PACKAGE}"]
    objects = compile_all(sorted(glob(f"{COMMAND}/*.c")), directory, headers, flags) + build_parts()
    linked = f"{directory}/cycontainer"
    if newer(objects, linked):
        subprocess.run([*compiler, *LINK_HOSTED, "-o", linked, *objects], check=True)
    if newer([linked], target):
        place(linked, target)


class BuildScripts(build_scripts):
    """`build_scripts`, which compiles the command that pip installs."""

    editable_mode = False

    def get_source_files(self) -> list[str]:
        return sorted(glob(f"{COMMAND}/*.[ch]") + glob(f"{COMMAND}/*.py"))

    def run(self) -> None:
        build_command(f"{self.build_dir}/cycontainer", os.path.abspath(".") if self.editable_mode else "")


class InstallData(install_data):
    """`install_data`, which makes the manual page and the shells' completions of the verbs' tables."""

    def run(self) -> None:
        for target, (script, *words) in SHARED.items():
            os.makedirs(os.path.dirname(f"build/{target}"), exist_ok=True)
            with open(f"build/{target}", "wb") as file:
                subprocess.run([sys.executable, f"{COMMAND}/{script}", *words], check=True, stdout=file)
        super().run()


class Build(build_ext):
    """`build_ext`, which also builds the init: into the source tree (--inplace), or beside the modules."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()
        self.library_dirs = []  # nothing but libc is linked, and for another machine these are the wrong place

    def run(self) -> None:
        super().run()
        for target, _ in self._init_files():
            self.build_init(target)
        if self.inplace:
            build_command(f"{COMMAND}/cycontainer")

    def build_extensions(self) -> None:
        to_c(self.extensions, force=bool(self.force))
        for module in self.extensions:
            if module.name == f"{PACKAGE}.cgroups":
                module.extra_objects = build_parts()
                module.depends += module.extra_objects
        super().build_extensions()

    def build_init(self, target: str) -> None:
        """Compile and link the init's .pyx files and start.S, by $CC; `target` is the program."""
        programs = extensions(glob(f"{INIT}/*.pyx"))
        to_c(programs, force=bool(self.force))
        compiler, machine = compiler_and_machine("INIT_CC", "CC")
        directory = f"build/init-{machine}"
        os.makedirs(directory, exist_ok=True)
        sources = [str(source) for program in programs for source in program.sources] + glob(f"{INIT}/*.S")
        headers = [*glob(f"{INIT}/*.h"), *glob(f"{PACKAGE}/*.h"), __file__]
        include = [f"-I{path}" for path in (PACKAGE, INIT, sysconfig.get_path("include"))]
        objects = [f"{directory}/{os.path.basename(source)}.o" for source in sources]
        for source, made in zip(sources, objects, strict=True):
            if self.force or newer([source, *headers], made):
                self.spawn([*compiler, *FREESTANDING, *include, "-c", source, "-o", made])
        linked = f"{directory}/init"
        if self.force or newer(objects, linked):
            self.spawn([*compiler, *LINK, "-o", linked, *objects])
        if newer([linked], target) or not self.inplace:
            place(linked, target)

    def get_outputs(self) -> list[str]:
        return sorted({*super().get_outputs(), *(built for _, built in self._init_files())})

    def get_output_mapping(self) -> dict[str, str]:
        """Built file: file in the source tree; for an editable installation."""
        mapping: dict[str, str] = super().get_output_mapping()
        return {**mapping, **({built: target for target, built in self._init_files()} if self.inplace else {})}

    def _init_files(self) -> list[tuple[str, str]]:
        """The init to make now, and where a wheel is collected from; nothing while it has no source."""
        if not glob(f"{INIT}/*.pyx"):
            return []
        built = f"{self.build_lib}/{INIT}/init"
        return [(f"{INIT}/init" if self.inplace else built, built)]


if __name__ == "__main__":
    setup(
        ext_modules=extensions(sorted({*glob(f"{PACKAGE}/*.pyx")} - {*PARTS})),
        scripts=["cycontainer"],  # compiled, not copied: BuildScripts
        data_files=[(os.path.dirname(target), [f"build/{target}"]) for target in SHARED],
        cmdclass={"build_ext": Build, "build_scripts": BuildScripts, "install_data": InstallData},
        options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
    )
