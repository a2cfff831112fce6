"""Completion: what may stand at the cursor, and the few lines with which each shell asks for it.

The shells ask the command itself (``edgec completion --answer``), so that passes and targets that packages bring are
completed too, and that all three shells complete alike. An answer is a word a line; ``:files`` and ``:folders`` ask
the shell for its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

FILES, FOLDERS = ":files", ":folders"

BASH = """\
# eval "$(edgec completion bash)" in ~/.bashrc
_edgec() {
    local answer path
    COMPREPLY=()
    while IFS= read -r answer; do
        case $answer in
            :files | :folders)
                compopt -o filenames 2>/dev/null
                while IFS= read -r path; do
                    COMPREPLY+=("$path")
                done < <(compgen "-$([[ $answer == :files ]] && echo f || echo d)" -- "${COMP_WORDS[COMP_CWORD]}")
                ;;
            *) COMPREPLY+=("$answer") ;;
        esac
    done < <("${COMP_WORDS[0]%-opt}" completion --answer "${COMP_WORDS[@]:0:COMP_CWORD+1}" 2>/dev/null)
}
complete -F _edgec edgec edgec-opt
"""

ZSH = """\
#compdef edgec edgec-opt
# eval "$(edgec completion zsh)" in ~/.zshrc, behind compinit; or save it as _edgec in a folder of $fpath
_edgec() {
    local answer
    local -a found
    for answer in "${(@f)$(${(Q)words[1]%-opt} completion --answer "${(@Q)words[1,CURRENT]}" 2>/dev/null)}"; do
        case $answer in
            :files) _files ;;
            :folders) _files -/ ;;
            ?*) found+=("$answer") ;;
        esac
    done
    compadd -a found
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _edgec "$@"; else compdef _edgec edgec edgec-opt; fi
"""

TCSH = """\
# edgec completion tcsh > ~/.edgec.tcsh, and "source ~/.edgec.tcsh" in ~/.tcshrc
complete edgec 'p@*@`edgec completion --answer-line`@'
complete edgec-opt 'p@*@`edgec completion --answer-line`@'
"""

SCRIPTS = {"bash": BASH, "tcsh": TCSH, "zsh": ZSH}


def answers(
    words: Sequence[str], commands: Mapping[str, argparse.ArgumentParser], main: argparse.ArgumentParser
) -> list[str]:
    """What may stand in the place of the last of ``words``.

    Args:
        words: the command line up to the cursor, the program left out; the last word is what is there so far.
        commands: the parser of each subcommand.
        main: the parser of the command without one.
    """
    *before, word = words
    if before and before[0] in commands:
        parser, before = commands[before[0]], before[1:]
        first: Sequence[str] = ()
    else:
        parser, first = main, () if before else tuple(commands)
    options = {text: action for action in parser._actions for text in action.option_strings}
    places = [action for action in parser._actions if not action.option_strings]
    given: set[argparse.Action] = set()
    waiting: argparse.Action | None = None
    for item in before:
        if waiting is not None:
            waiting = None
        elif item in options:
            given.add(options[item])
            waiting = options[item] if options[item].nargs != 0 else None
        elif places:
            places.pop(0)
    if waiting is not None:
        found = _values(waiting, word)
    elif word.startswith("-"):
        repeated = argparse._AppendAction
        found = [text for text, action in options.items() if action not in given or isinstance(action, repeated)]
    else:
        found = [*first, *(_values(places[0], word) if places else ())]
    return [text for text in found if text.startswith((word, ":"))]


def paths(answer: str, word: str) -> list[str]:
    """What ``:files`` and ``:folders`` stand for, for a shell that cannot say it: paths that begin with ``word``."""
    folder, slash, start = word.rpartition("/")
    found = []
    for path in sorted(Path(folder + slash or ".").glob("*")):
        if path.name.startswith(start) and (path.is_dir() or answer == FILES) and (start or path.name[0] != "."):
            found.append(f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}")
    return found


def _values(action: argparse.Action, word: str) -> list[str]:
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    known = _KINDS.get(str(action.metavar))
    return [] if known is None else known(word)


def _passes(word: str) -> list[str]:
    from importlib.metadata import entry_points

    # Only the names: what the registry imports would be waited for at every key.
    return sorted({entry.name for entry in entry_points(group="edgec.passes")})


def _targets(word: str) -> list[str]:
    from edgec.backends.registry import target_names

    return target_names()


def _pipeline(word: str) -> list[str]:
    done = word[: word.rfind(",") + 1]
    return [done + name for name in _passes(word)] if done.count("{") == done.count("}") else []


# What an argument takes is said by its metavar.
_KINDS: dict[str, Callable[[str], list[str]]] = {
    "DIR": lambda word: [FOLDERS],
    "FILE": lambda word: [FILES],
    "MODEL": lambda word: [FILES],
    "PASS": _passes,
    "PIPELINE": _pipeline,
    "RECIPE": lambda word: [FILES],
    "TARGET": _targets,
}
