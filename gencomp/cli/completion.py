"""`gencomp completion`, which prints a script that completes commands in a shell.

The script holds all words that can follow, so that a shell answers without starting gencomp.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Literal

import tyro

from gencomp.cli import COMMANDS, FLAGS, GROUPS, parameters
from gencomp.cli.parameters import Usage
from gencomp.recipes import shipped

_RECIPES, _SWEEPS = "gencomp.recipes", "sweeps"
# The packages whose files the first argument of a command may name.
_NAMED = {
    "train": (_RECIPES,),
    "slurm train": (_RECIPES,),
    "sweep": (_SWEEPS,),
    "slurm sweep": (_SWEEPS,),
    "recipes": (_RECIPES, _SWEEPS),
}

_TABLES = """\
_gencomp_options() {{ # prints the options of a command
  case "$1" in
{options}
  esac
}}

_gencomp_valued() {{ # prints those of its options that take a value
  case "$1" in
{valued}
  esac
}}

_gencomp_values() {{ # prints the values of an option, or of the first argument of a command
  case "$1" in
{values}
  esac
}}
"""

# What a word before the cursor is, in the words of both shells.
_STEP = """\
    if [[ -n "$option" ]]; then
      option=""
    elif [[ " $(_gencomp_valued "$command") " == *" $word "* || "$word" == --*.* ]]; then
      option="$word"
    elif [[ "$word" == -* ]]; then
      :
    elif [[ -z "$command" || " {groups} " == *" $command "* ]]; then
      command="${{command:+$command }}$word"
    else
      arguments=$((arguments + 1))
    fi"""

_BASH = """\
# Completion of gencomp for bash, written by `gencomp completion bash`.

{tables}
_gencomp() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" command="" arguments=0 option="" word position
  COMPREPLY=()
  for ((position = 1; position < COMP_CWORD; position++)); do
    word="${{COMP_WORDS[position]}}"
{step}
  done
  if [[ -n "$option" ]]; then
    word="$(_gencomp_values "$command $option")"
  elif [[ "$current" == -* ]]; then
    word="$(_gencomp_options "$command")"
  elif [[ "$arguments" == 0 ]]; then
    word="$(_gencomp_values "$command")"
  else
    word=""
  fi
  COMPREPLY=($(compgen -W "$word" -- "$current"))
}}

# Where nothing of the above fits, names of files are completed.
complete -o default -F _gencomp gencomp
"""

_ZSH = """\
#compdef gencomp
# Completion of gencomp for zsh, written by `gencomp completion zsh`.

{tables}
_gencomp() {{
  emulate -L zsh
  local command="" arguments=0 option="" word position
  local -a found
  for ((position = 2; position < CURRENT; position++)); do
    word="$words[position]"
{step}
  done
  if [[ -n "$option" ]]; then
    found=(${{=$(_gencomp_values "$command $option")}})
  elif [[ "$words[CURRENT]" == -* ]]; then
    found=(${{=$(_gencomp_options "$command")}})
  elif [[ "$arguments" == 0 ]]; then
    found=(${{=$(_gencomp_values "$command")}})
  fi
  # Where nothing of these fits, names of files are completed.
  compadd -a found || _files
}}

# Loaded from a folder of functions, the file is the function; else it only defines it.
if [[ "${{funcstack[1]}}" == _gencomp ]]; then
  _gencomp "$@"
else
  compdef _gencomp gencomp
fi
"""

_Shell = Literal["bash", "zsh"]
_SCRIPTS: dict[_Shell, str] = {"bash": _BASH, "zsh": _ZSH}


def completion(shell: tyro.conf.Positional[_Shell], /) -> None:
    """Print a script that completes commands, options and names of recipes in a shell.

    Write it to the folder from which bash-completion loads scripts, once after each installation:
    gencomp completion bash > ~/.local/share/bash-completion/completions/gencomp. For zsh, write it
    as _gencomp to a folder of $fpath, or add source <(gencomp completion zsh) to ~/.zshrc after
    compinit. The script holds all words itself, so that a shell completes at once, without starting
    gencomp.

    Args:
        shell: The shell.
    """
    print(script(shell, {name: parameters.of_command(name) for name in COMMANDS}), end="")


def script(shell: _Shell, usages: Mapping[str, Usage]) -> str:
    """The script for a shell.

    Args:
        shell: The shell.
        usages: What each command takes, by the words of the command.
    """
    options = {"": sorted(FLAGS)}
    valued: dict[str, list[str]] = {}
    values: dict[str, list[str]] = {"": sorted({name.split()[0] for name in usages})}
    for group in sorted(GROUPS):
        options[group] = ["--help"]
        values[group] = [name.split()[1] for name in usages if name.split()[0] == group]
    for name, usage in usages.items():
        named = [one for one in usage.parameters if one.names]
        options[name] = [*(word for one in named for word in one.names), "--help"]
        valued[name] = [word for one in named if one.value for word in one.names]
        first = next((one for one in usage.parameters if not one.names), None)
        packages = _NAMED.get(name, ())
        values[name] = [word for package in packages for word in shipped.names(package)]
        values[name] += first.choices if first else ()
        values |= {f"{name} {word}": [*one.choices] for one in named for word in one.names}
    tables = _TABLES.format(options=_cases(options), valued=_cases(valued), values=_cases(values))
    step = _STEP.format(groups=" ".join(sorted(GROUPS)))
    return _SCRIPTS[shell].format(tables=tables, step=step)


def _cases(words: Mapping[str, Iterable[str]]) -> str:
    """The branches of a `case` that print words, without those that would print none."""
    lines = []
    for case, found in words.items():
        if text := " ".join(found):
            lines.append(f"    {shlex.quote(case)}) echo {shlex.quote(text)} ;;")
    return "\n".join(lines)
