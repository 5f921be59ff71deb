"""`python -m slurp.reference build [--check]`: docs/cli.md, the page of all options."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from slurp.configfile import FLAGS_ONLY
from slurp.options import CONFIG_FILES, build_parser, variable

FILE = Path(__file__).parents[1] / "docs" / "cli.md"

_DEFAULT = re.compile(r"\s*\(default: ([^)]+)\)").search
_FILES = ", ".join(f"`{file}`" for file in CONFIG_FILES)
_HEAD = f"""\
# The command line

<!-- Made by `python -m slurp.reference build`: edit slurp/options.py instead. -->

`skeetslurper [OPTION]…`, in a checkout `.venv/bin/python skeetslurper.py`. No option has to be set. Each can
be a flag, an environment variable, or a line `name = value` in a file:
{_FILES} or the one after `-c`.
Where there is `$XDG_CONFIG_HOME/skeetslurper.conf`, it is read in place of the second.
Flags win over the environment, the environment over files, a later file over an earlier one. A list comes
from one of them as a whole.

- A switch is `true` or `false` in the environment and in files; in a file its name alone is `true`.
- What is *repeatable* is a flag or a line several times, or values with commas; in the environment and in
  files also a list in brackets: `[a, b]`.
- Durations are `500ms`, `30s`, `5m`, `36h`, `30d`; sizes are `500kB`, `64MB`, `1GB`.
- A value or option that is wrong ends the program with exit code 2 and one line, which names the file and
  line, or the variable. A `SKEETSLURPER_…` variable that is nearly an option does so, too. Another one that
  is no option is named in a warning and ignored: Kubernetes sets `SKEETSLURPER_PORT` and more beside a
  Service named `skeetslurper`.
- Exit codes: **0** done or stopped on request, **1** failed, stopped by a second signal, or `--catch-up` or
  `--setup-only` that could not finish, **2** wrong usage or credentials.

## Config files

UTF-8, with or without a byte order mark, one option a line. Blanks around name and value do not count.

```
# A comment, as with ; at the begin of a line, or after a blank behind a value:
index = bluesky-events            # also 'index: bluesky-events' and 'index bluesky-events'
es-pass = "a # b"                 # in quotes: taken as it is, with blanks and #; there are no escapes
es-pass = 'say "x"'               # to have one kind of quote, use the other
es-pass = a#b'c                   # without quotes: up to a comment
collections = app.bsky.feed.post  # what is repeatable has the values of all its lines
collections = app.bsky.graph.*
no-kibana                         # a switch: the same as 'no-kibana = true'
worker-name =                     # an empty value
[elasticsearch]                   # a heading, ignored; so is ---
```

Everything else is an error with the number of its line: an unknown option, an option without its value, a
second line for an option that is not repeatable (as `es-pass` above), a quote that is not closed. So is
`es-pass = a # b`, which may be a comment or a part of the password. Such errors repeat no value. A password
that needs quotes and has both kinds goes into a file of its own: `es-pass-file`.

## Check

`skeetslurper --check`, with the options of the worker, prints each effective option as a line of a config
file, secrets as `***`, with the flag, the variable, or the file and line that it comes from. Then it looks at
these, once:

- every `--jetstream`: a handshake;
- every `--es`: health, version, and the privileges that [privileges.md](privileges.md) names; where the
  set-up is not ours to do, whether it is there;
- Kibana: its status, our credentials, the space. A Kibana that is only the default may be absent;
- whether the dead-letter file can be written.

It writes nothing, in no cluster and to no file, and takes no port and no lock, so it can run beside the
worker. With `--embedded` no node is started. Exit codes: **0** all good, **1** something can't be reached,
**2** wrong options, credentials or privileges.

## Completion

Completion of options and their values, once for each shell:

```sh
mkdir -p ~/.local/share/bash-completion/completions ~/.config/fish/completions
skeetslurper --print-completion bash > ~/.local/share/bash-completion/completions/skeetslurper
skeetslurper --print-completion fish > ~/.config/fish/completions/skeetslurper.fish
skeetslurper --print-completion zsh > "${{fpath[1]}}/_skeetslurper"    # in zsh, perhaps as root
```
"""


def page() -> str:
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _HEAD
    parser = build_parser()
    for group in parser._action_groups:
        if not group._group_actions:
            continue
        title = group.title or ""
        yield f"## {'General' if title == 'options' else title[0].upper() + title[1:]}\n"
        yield _row("option", "environment", "key", "default", "meaning")
        yield _row(*["---"] * 5)
        for action in group._group_actions:
            yield _row(*_cells(action))
        yield ""


def _cells(action: argparse.Action) -> Iterator[str]:
    name = action.option_strings[-1]
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    yield ", ".join(f"`{option}{value}`" for option in action.option_strings)
    if name in FLAGS_ONLY:
        yield from ("", "")
    else:
        yield f"`{variable(name)}`"
        yield f"`{name.removeprefix('--')}`"
    # The text and not the value, which may depend on the machine.
    text = action.help or ""
    found = _DEFAULT(text)
    switch = "off" if action.nargs == 0 and name not in FLAGS_ONLY else ""
    yield found[1] if found else switch
    yield (text.replace(found[0], "") if found else text).lstrip("; ")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """0: built or up to date; 1: `--check` found a difference."""
    parser = argparse.ArgumentParser(prog="python -m slurp.reference", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="write the page")
    build.add_argument("--check", action="store_true", help="write nothing; exit 1 if it would change")
    build.add_argument("--output", type=Path, default=FILE, help="where to (default: docs/cli.md)")
    options = parser.parse_args(arguments)
    if not options.check:
        options.output.write_text(page(), encoding="utf-8")
        return 0
    if options.output.is_file() and options.output.read_text(encoding="utf-8") == page():
        return 0
    print(f"{options.output.name} is not what the options give; run build without --check", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
