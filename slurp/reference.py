"""Generator of docs/cli.md, the reference of all options: `python -m slurp.reference build [--check]`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from slurp.options.config_file import COMMAND_LINE_ONLY
from slurp.options.definitions import CONFIG_FILES, build_parser
from slurp.options.parser import env_variable

FILE = Path(__file__).parents[1] / "docs" / "cli.md"

_DEFAULT = re.compile(r"\s*\(default: ([^)]+)\)").search
_FILES = ", ".join(f"`{file}`" for file in CONFIG_FILES)
_HEAD = f"""\
# Command-line options

<!-- Made by `python -m slurp.reference build`: edit slurp/options/definitions.py instead. -->

Usage: `skeetslurper [OPTION]…`, in a checkout `.venv/bin/python skeetslurper.py`. No option is required.
Options are given on the command line, as environment variables, or as lines `name = value` of a
config file: {_FILES}, or the file given with `-c`.
If `$XDG_CONFIG_HOME/skeetslurper.conf` exists, it replaces the second file.
The command line overrides the environment, the environment overrides the files, and a later file overrides an
earlier one. The values of a repeatable option all come from one of these sources.

- A switch is `true` or `false` in the environment and in files; in a file, the name alone means `true`.
- A *repeatable* option is given several times or has several values separated by commas. In the environment
  and in files it may also be a list in brackets: `[a, b]`.
- Durations: `500ms`, `30s`, `5m`, `36h`, `30d`. Sizes: `500kB`, `64MB`, `1GB`.
- An invalid option or value ends the program with exit code 2 and one line, which names the file and line, or
  the variable. This includes a `SKEETSLURPER_…` variable that looks like a misspelled option. Other unknown
  `SKEETSLURPER_…` variables are ignored with a warning: Kubernetes sets `SKEETSLURPER_PORT` and more for a
  Service named `skeetslurper`.

## Exit codes

- **0**: done, or stopped on request. With `--check`: no problem found
- **1**: failed, or stopped by a second signal, or `--catch-up` or `--setup-only` stopped before its end. With
  `--check`: a server is not reachable or not usable
- **2**: wrong options, credentials or privileges, or a filter that Jetstream rejects. With `--check`: wrong
  options, credentials or privileges

## Config files

The encoding is UTF-8, with or without a byte order mark. Each line has one option. Blanks around the name and
around the value are ignored.

```
# A comment. # and ; start one at the beginning of a line, or after a blank behind a value:
index = bluesky-events            # also 'index: bluesky-events' and 'index bluesky-events'
es-pass = "a # b"                 # quotes keep blanks and #; there are no escape sequences
es-pass = 'say "x"'               # a value with one kind of quote needs the other kind
es-pass = a#b'c                   # without quotes, the value ends at a comment
collections = app.bsky.feed.post  # a repeatable option may have several lines
collections = app.bsky.graph.*
no-kibana                         # a switch; the same as 'no-kibana = true'
worker-name =                     # an empty value
[elasticsearch]                   # headings are ignored; so is ---
```

Any other line is an error, which names the line number: an unknown option, an option without a value, a
second line for an option that is not repeatable (such as `es-pass` above), a missing closing quote.
`es-pass = a # b` is an error as well, since `# b` may be a comment or part of the password. These errors
never repeat a value. A password that needs quotes and contains both kinds must be in a file of its own:
`es-pass-file`.

## Check

`skeetslurper --check`, with the options of the worker, prints each effective option as a line of a config
file, with its origin: the command line, the variable, or the file and line. Secrets are shown as `***`. Then
it tests once:

- each `--jetstream`: a handshake;
- each `--es`: health, version, and the privileges listed in [privileges.md](privileges.md); if the worker may
  not install index templates, ingest pipeline and policy, whether they exist;
- Kibana: its status, the credentials, the space. A Kibana at the default URL may be absent;
- whether the dead-letter file is writable.

Each result is a line that starts with `ok`, `skip` or `FAIL`. The check writes nothing to a cluster or file,
opens no port and takes no lock, so it can run beside the worker. It does not start an embedded node.
See [Exit codes](#exit-codes).

## Shell completion

Install the completion script for options and their values:

```sh
mkdir -p ~/.local/share/bash-completion/completions ~/.config/fish/completions
skeetslurper --print-completion bash > ~/.local/share/bash-completion/completions/skeetslurper
skeetslurper --print-completion fish > ~/.config/fish/completions/skeetslurper.fish
skeetslurper --print-completion zsh > "${{fpath[1]}}/_skeetslurper"    # in zsh, perhaps as root
```
"""


def page() -> str:
    """Return the text of docs/cli.md."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _HEAD
    parser = build_parser()
    for group in parser._action_groups:
        if not group._group_actions:
            continue
        title = group.title or ""
        yield f"## {'General' if title == 'options' else title[0].upper() + title[1:]}\n"
        yield _row("option", "environment variable", "name in files", "default", "meaning")
        yield _row(*["---"] * 5)
        for action in group._group_actions:
            yield _row(*_cells(action))
        yield ""


def _cells(action: argparse.Action) -> Iterator[str]:
    name = action.option_strings[-1]
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    yield ", ".join(f"`{option}{value}`" for option in action.option_strings)
    if name in COMMAND_LINE_ONLY:
        yield from ("", "")
    else:
        yield f"`{env_variable(name)}`"
        yield f"`{name.removeprefix('--')}`"
    # The default in the help text, as the default value may depend on the machine.
    text = action.help or ""
    default = _DEFAULT(text)
    switch = "off" if action.nargs == 0 and name not in COMMAND_LINE_ONLY else ""
    yield default[1] if default else switch
    yield text.replace(default[0], "") if default else text


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 if the page was written or is up to date, 1 if `--check` found a difference."""
    parser = argparse.ArgumentParser(prog="python -m slurp.reference", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="write docs/cli.md")
    build.add_argument("--check", action="store_true", help="write nothing; exit 1 if it is not up to date")
    build.add_argument("--output", type=Path, default=FILE, help="file to write (default: docs/cli.md)")
    options = parser.parse_args(arguments)
    if not options.check:
        options.output.write_text(page(), encoding="utf-8")
        return 0
    if options.output.is_file() and options.output.read_text(encoding="utf-8") == page():
        return 0
    print(f"{options.output.name} is not up to date (run `make docs`)", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
