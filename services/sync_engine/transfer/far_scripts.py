"""What is run at the far end of an ssh connection: POSIX shell with GNU coreutils and findutils.

Each script gets the destination's folder as $1. No script holds a single quote, and no name stands in one.
"""

from __future__ import annotations

from typing import Final

from services.sync_engine.transfer.rsync_failures import LEADS_AWAY, ROOT_MISSING

ALIVE: Final = "labferry: reading"
_ENTER: Final = f'[ -d "$1" ] || {{ echo "{ROOT_MISSING}: $1" >&2; exit 3; }}; cd -- "$1" || exit 3; '
# A folder that is a symlink, or lies behind one, would lead out of the destination.
_NOT_BEHIND_LINK: Final = (
    '[ "$(realpath -m -- "./$2")" = "$(realpath -m -- "$(pwd -P)")/$2" ]'
    f' || {{ echo "{LEADS_AWAY}: $2" >&2; exit 4; }}; '
)

CHECK: Final = _ENTER + (
    'if [ "$2" = used ] && ! [ -d .labferry-incoming ]; then'
    f' echo "{ROOT_MISSING}: $1 is another folder than before, its .labferry-incoming is gone" >&2; exit 3; fi;'
    " mkdir -p .labferry-incoming && rm -f .labferry-incoming/check && : > .labferry-incoming/check"
    " && rm -f .labferry-incoming/check"
)
VERSIONS: Final = "rsync --version && sha256sum --version && find --version && cp --version && xargs --version"
FREE: Final = _ENTER + "df --output=avail -B1 . | tail -n 1"
# $2: a new folder for trying; prints what holds. $3 and $4 are one letter in two Unicode forms, $5 is not UTF-8.
PROBE: Final = _ENTER + (
    'mkdir -p -- "./$2" && cd -- "./$2" || exit 5;'
    " : > Case || exit 5;"
    " [ -e cASE ] && echo one_case;"
    ' : > "$3" && [ -e "$4" ] && echo one_form;'
    ' : > "$5" 2>/dev/null && [ -n "$(find . -name "$5")" ] && echo any_bytes;'
    " ln -s nowhere link 2>/dev/null && [ -h link ] && echo symlinks;"
    " ln Case hard 2>/dev/null && echo hard_links;"
    ' getconf NAME_MAX .; cd - >/dev/null; rm -rf -- "./$2"'
)
NAMES: Final = (
    _ENTER
    + _NOT_BEHIND_LINK
    + (
        '[ -e "./$2" ] || exit 0;'
        f' [ -d "./$2" ] || {{ echo "{LEADS_AWAY}: $2" >&2; exit 4; }};'
        ' find "./$2" -mindepth 1 -printf "%y\\0%s\\0%P\\0%l\\0"'
    )
)
# While it reads a large file it says so each second, by what the kernel has counted; where the kernel doesn't tell,
# that it runs must do.
HASH: Final = _ENTER + (
    '[ -z "$2" ] || cd -- "./$2" || exit 3; shift 2; sha256sum -zb -- "$@" & hashing=$!;'
    " (before=; while sleep 1 >/dev/null 2>&1; do now=; { read -r now < /proc/$hashing/io; } 2>/dev/null;"
    f' [ -n "$now" ] && [ "$now" = "$before" ] || echo "{ALIVE}" >&2; before=$now; done) &'
    " beating=$!; wait $hashing; code=$?; kill $beating; exit $code"
)
MAKE_FOLDER: Final = _ENTER + 'mkdir -p -- "./$2"'
# $2: the run; then times and folders in it, in turn. A folder that was there before may be another user's, in which we
# may write and no more: then it keeps its time.
DATE_FOLDERS: Final = (
    _ENTER
    + _NOT_BEHIND_LINK
    + (
        'cd -- "./$2" || exit 3; shift 2;'
        ' while [ $# -gt 1 ]; do touch -chm -d "@$1" -- "./$2" 2>/dev/null || :; shift 2; done'
    )
)
SYNC: Final = _ENTER + 'sync -f "./$2"'
# $2: the batch, $3: the run. A file that got its name has two of them: links make the landing exclusive.
LAND: Final = _ENTER + (
    'batch=$2; run=$3; shift; set -- "" "$run";'
    + _NOT_BEHIND_LINK
    + ' sync -f "./$batch" && mkdir -p -- "./$run" || exit 5;'
    ' cp -rlnPT -- "./$batch" "./$run" >&2;'
    ' find "./$batch" ! -type d -links 1 -printf "%P\\0"; sync -f "./$run"'
)
MOVE: Final = _ENTER + (
    'shift; while [ $# -gt 1 ]; do d=./$2; mkdir -p -- "${d%/*}" && ln -P -- "./$1" "./$2" && rm -f -- "./$1"'
    " || exit 5; shift 2; done; sync -f ."
)
REPLACE: Final = _ENTER + (
    'shift; while [ $# -gt 1 ]; do d=./$2; mkdir -p -- "${d%/*}" && mv -fT -- "./$1" "./$2" || exit 5;'
    ' sync -f "${d%/*}"; shift 2; done'
)
REMOVE: Final = _ENTER + 'shift; for name do rm -rf -- "./$name" || exit 5; done'
CHILDREN: Final = _ENTER + ('[ -d "./$2" ] || exit 0; find "./$2" -mindepth 1 -maxdepth 1 -type d -printf "%f\\0"')
