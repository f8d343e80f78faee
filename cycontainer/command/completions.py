"""Prints what completes the command's words in a shell, made of the verbs' tables at build time.

python cycontainer/command/completions.py bash|zsh|fish
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from cycontainer.cli import __main__ as command  # the path comes first
from cycontainer.cli.verb import HELP as ASKS_FOR_HELP
from cycontainer.cli.verb import Option, Verb
from cycontainer.command.verbs import every_verb
from cycontainer.tables import SIGNALS

MAKES = frozenset(("create", "run", "restore"))  # whose ID is a new one
SIGNAL_NAMES = " ".join(name.removeprefix("SIG") for name in SIGNALS)
HELP = Option(names=ASKS_FOR_HELP, help="print a verb's options")


def kind_of(option: Option) -> str:
    """What an option's value is: one of its choices, a directory, a file, or any text."""
    if option.choices:
        return " ".join(option.choices)
    return {"DIR": "@directories", "FILE": "@files", "PATH": "@files"}.get(option.value, "@nothing")


def operand_kinds(name: str, verb: Verb) -> list[str]:
    """What a verb's operands are, in order; the last is that of all that follow."""
    first, _, more = verb.usage.partition(" ")
    kinds = {"ID": ["@nothing" if name in MAKES else "@ids"], "BUNDLE": ["@directories"], "": []}[first]
    if "SIGNAL" in more:
        kinds = [*kinds, SIGNAL_NAMES]
    return [*kinds, "@files" if verb.ends_at_operand else "@nothing"]


# --- bash

BASH = r"""# bash completion for cycontainer. Made of the command's own tables.

_cycontainer_value() { # VERB OPTION: what its value is; fails if it takes none
    case $1:$2 in
%(values)s
    *) return 1 ;;
    esac
}

_cycontainer_operand() { # VERB NUMBER: what its operand of that number is
    case $1:$2 in
%(operands)s
    *) echo @nothing ;;
    esac
}

_cycontainer_options() { # VERB: its options
    case $1 in
%(options)s
    esac
}

_cycontainer_reply() { # KIND CURRENT ROOT-OPTION...
    local kind=$1 current=$2
    shift 2
    case $kind in
    @nothing) ;;
    @files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    @directories) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
    @ids) mapfile -t COMPREPLY < <(compgen -W "$(cycontainer "$@" list --quiet 2>/dev/null)" -- "$current") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$kind" -- "$current") ;;
    esac
}

_cycontainer() {
    local current=${COMP_WORDS[COMP_CWORD]} verb= option= word i operands=0 ended=
    local -a words=() root=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do # bash breaks --option=VALUE into three words
        [[ ${COMP_WORDS[i]} == "=" ]] || words+=("${COMP_WORDS[i]}")
    done
    [[ $current == "=" ]] && current=
    for word in "${words[@]}"; do
        if [[ $option ]]; then
            [[ $option == --root ]] && root=(--root "$word")
            option=
        elif [[ $word == -- && ! $ended ]]; then
            ended=1
        elif [[ $word == -?* && ! $ended ]]; then
            _cycontainer_value "$verb" "$word" >/dev/null && option=$word
        elif [[ ! $verb ]]; then
            verb=$word
        else
            operands=$((operands + 1))
            case $verb in %(enders)s) ended=1 ;; esac
        fi
    done
    if [[ $option ]]; then
        _cycontainer_reply "$(_cycontainer_value "$verb" "$option")" "$current"
    elif [[ $current == -* && ! $ended ]]; then
        _cycontainer_reply "$(_cycontainer_options "$verb")" "$current"
    elif [[ ! $verb ]]; then
        _cycontainer_reply "%(verbs)s" "$current"
    else
        _cycontainer_reply "$(_cycontainer_operand "$verb" "$operands")" "$current" "${root[@]}"
    fi
}

complete -F _cycontainer cycontainer
"""


def every_table(verbs: Mapping[str, Verb]) -> Iterator[tuple[str, tuple[Option, ...]]]:
    """The global options, under no name, and those of the verbs."""
    yield "", command.GLOBAL
    yield from ((name, (*verb.options, HELP)) for name, verb in verbs.items())


def in_bash(verbs: Mapping[str, Verb]) -> str:
    values, options, operands = [], [], []
    for name, table in every_table(verbs):
        options.append(f'    "{name}") echo "{" ".join(word for option in table for word in option.names)}" ;;')
        for option in (option for option in table if option.value):
            names = " | ".join(f"{name}:{word}" for word in option.names)
            values.append(f'    {names}) echo "{kind_of(option)}" ;;')
    for name, verb in verbs.items():
        *kinds, rest = operand_kinds(name, verb)
        operands += [f'    {name}:{number}) echo "{kind}" ;;' for number, kind in enumerate(kinds)]
        operands.append(f'    {name}:*) echo "{rest}" ;;')
    return BASH % {
        "values": "\n".join(values),
        "options": "\n".join(options),
        "operands": "\n".join(operands),
        "enders": " | ".join(name for name, verb in verbs.items() if verb.ends_at_operand),
        "verbs": " ".join(verbs),
    }


# --- zsh

ZSH = r"""#compdef cycontainer
# Made of the command's own tables.

_cycontainer_ids() {
    local -a ids
    ids=(${(f)"$(cycontainer $cycontainer_root list --quiet 2>/dev/null)"})
    compadd -a ids
}

_cycontainer() {
    local context state state_descr line
    local -a cycontainer_root verbs
    typeset -A opt_args
    verbs=(
%(verbs)s
    )
    _arguments -C -S \
%(options)s
        '1:verb:->verb' '*::word:->words' && return
    [[ -n ${opt_args[--root]} ]] && cycontainer_root=(--root ${opt_args[--root]})
    if [[ $state == verb ]]; then
        _describe verb verbs
        return
    fi
    case $line[1] in
%(cases)s
    esac
}

_cycontainer "$@"
"""
ZSH_ACTIONS = {"@nothing": " ", "@files": "_files", "@directories": "_files -/", "@ids": "_cycontainer_ids"}


def zsh_quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("[", r"\[").replace("]", r"\]").replace(":", r"\:").replace("'", r"'\''")


def zsh_action(kind: str) -> str:
    return ZSH_ACTIONS.get(kind) or f"({kind})"


def zsh_options(table: tuple[Option, ...]) -> list[str]:
    """An argument of _arguments for each name of each option; it may be repeated only if its help says so."""
    words = []
    for option in table:
        value = f":{zsh_quoted(option.value)}:{zsh_action(kind_of(option))}" if option.value else ""
        before = "*" if "may be repeated" in option.help else f"({' '.join(option.names)})"
        for name in option.names:
            equals = "=" if value and name.startswith("--") else ""
            words.append(f"'{before}{name}{equals}[{zsh_quoted(option.help)}]{value}'")
    return words


def in_zsh(verbs: Mapping[str, Verb]) -> str:
    cases = []
    for name, verb in verbs.items():
        *kinds, rest = operand_kinds(name, verb)
        words = zsh_options((*verb.options, HELP))
        words += [f"'{number}:operand:{zsh_action(kind)}'" for number, kind in enumerate(kinds, 1)]
        words += [f"'*::operand:{zsh_action(rest)}'"] if rest != "@nothing" else []
        joined = " \\\n            ".join(words)
        cases.append(f"    {name})\n        _arguments -S {joined}\n        ;;")
    described = [f"        '{name}:{zsh_quoted(text)}'" for name, text in command.VERBS.items()]
    options = [f"        {word} \\" for word in zsh_options(command.GLOBAL)]
    return ZSH % {"verbs": "\n".join(described), "options": "\n".join(options), "cases": "\n".join(cases)}


# --- fish

FISH = r"""# fish completion for cycontainer. Made of the command's own tables.

function __cycontainer_words # the verb that has been typed, and its operands; with --root, that option's value alone
    set -l skip ''
    for word in (commandline -opc)[2..-1]
        if test -n "$skip"
            test "$skip" = --root; and test "$argv[1]" = --root; and echo -- $word
            set skip ''
        else if contains -- $word %(valued)s
            set skip $word
        else if string match -q -- '--root=*' $word; and test "$argv[1]" = --root
            string replace -- --root= '' $word
        else if not string match -q -- '-*' $word; and test "$argv[1]" != --root
            echo -- $word
        end
    end
end

function __cycontainer_in # VERB [OPERANDS]: whether it is that verb, with so many operands before
    set -l words (__cycontainer_words)
    test "$words[1]" = "$argv[1]"; or return 1
    test (count $argv) -lt 2; or test (math (count $words) - 1) = $argv[2]
end

function __cycontainer_ids
    set -l root (__cycontainer_words --root)
    if test -n "$root"
        cycontainer --root $root[-1] list --quiet 2>/dev/null
    else
        cycontainer list --quiet 2>/dev/null
    end
end

complete -c cycontainer -f
"""
FISH_ACTIONS = {
    "@nothing": "",
    "@files": " -r -F",
    "@directories": " -a '(__fish_complete_directories)'",
    "@ids": " -a '(__cycontainer_ids)'",
}


def fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", r"\'") + "'"


def fish_action(kind: str) -> str:
    return FISH_ACTIONS.get(kind, f" -a '{kind}'")


def in_fish(verbs: Mapping[str, Verb]) -> str:
    lines = []
    valued = [word for _, table in every_table(verbs) for option in table if option.value for word in option.names]
    flags = {word for _, table in every_table(verbs) for option in table if not option.value for word in option.names}
    none = "-n 'not string length -q -- (__cycontainer_words)'"
    for name, text in command.VERBS.items():
        lines.append(f"complete -c cycontainer {none} -a {name} -d {fish_quoted(text)}")
    for name, table in every_table(verbs):
        where = f"-n '__cycontainer_in {name}'" if name else none
        for option in table:
            names = " ".join(
                f"-l {word[2:]}" if word.startswith("--") else f"-s {fish_quoted(word[1:])}" for word in option.names
            )
            kind = kind_of(option)
            value = fish_action(kind) + " -x" * (kind != "@files") if option.value else ""
            lines.append(f"complete -c cycontainer {where} {names}{value} -d {fish_quoted(option.help)}")
    for name, verb in verbs.items():
        for number, kind in enumerate(operand_kinds(name, verb)[:-1]):
            if kind != "@nothing":
                lines.append(f"complete -c cycontainer -n '__cycontainer_in {name} {number}'{fish_action(kind)}")
        if verb.ends_at_operand:
            lines.append(f"complete -c cycontainer -n '__cycontainer_in {name}; and not __cycontainer_in {name} 0' -F")
    words = " ".join(dict.fromkeys(word for word in valued if word not in flags))
    return FISH % {"valued": words} + "\n".join(lines) + "\n"


if __name__ == "__main__":
    print({"bash": in_bash, "zsh": in_zsh, "fish": in_fish}[sys.argv[1]](every_verb()), end="")
