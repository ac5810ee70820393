"""What is run at the far end of an ssh connection: POSIX shell with GNU coreutils and findutils.

Each script gets the destination's folder as $1. No script holds a single quote, and no name stands in one.
"""

from __future__ import annotations

from typing import Final

from services.sync_engine.transfer.far_times import FAR_TIMES
from services.sync_engine.transfer.rsync_failures import FOLDER_MISSING, LEADS_AWAY, NOT_OURS, ROOT_MISSING

ALIVE: Final = "labferry: reading"
_ENTER: Final = f'[ -d "$1" ] || {{ echo "{ROOT_MISSING}: $1" >&2; exit 3; }}; cd -- "$1" || exit 3; '
# A folder that is a symlink, or lies behind one, would lead out of the destination: there nothing is written, moved or
# removed. `folder` refuses it, and anything that is no folder; `above` that of a name.
_WITHIN: Final = _ENTER + (
    "folder() { p=$1; while :; do"
    ' if [ -h "./$p" ] || { [ -e "./$p" ] && ! [ -d "./$p" ]; }; then'
    f' echo "{LEADS_AWAY}: $p" >&2; exit 4; fi;'
    " case $p in */*) p=${p%/*} ;; *) return 0 ;; esac; done; };"
    ' above() { case $1 in */*) folder "${1%/*}" ;; esac; }; '
)

HAS_INCOMING: Final = _ENTER + "[ -d .labferry-incoming ] && echo there; exit 0"
CHECK: Final = _WITHIN + (
    "folder .labferry-incoming; mkdir -p .labferry-incoming && rm -f .labferry-incoming/check"
    " && : > .labferry-incoming/check && rm -f .labferry-incoming/check"
)
VERSIONS: Final = "rsync --version && sha256sum --version && find --version && cp --version && xargs --version"
FREE: Final = _ENTER + "df --output=avail -B1 . | tail -n 1"
# $2: a new folder for trying; prints what holds. $3 and $4 are one letter in two Unicode forms, $5 is not UTF-8, $6 and
# $7 may be one name in either case. Then come names to try: of each that is found by itself its number is said, and
# behind the first NUL what a listing has. A redirection that fails ends the shell itself, for ":" is one of its special
# commands. A full disk says nothing of names, also one that was full by the last of them.
PROBE: Final = _WITHIN + (
    'full() { case $1 in *"No space left"* | *"quota exceeded"*) echo "$1" >&2; exit 5 ;; esac; };'
    ' tried=$2; folder "$tried"; mkdir -p -- "./$tried" && cd -- "./$tried" || exit 5;'
    " : > Case || exit 5;"
    " [ -e cASE ] && echo one_case;"
    ' : > "$3" && [ -e "$4" ] && echo one_form;'
    ' said=$( (: > "$5") 2>&1 ) && [ -n "$(find . -name "$5")" ] && echo any_bytes; full "$said";'
    ' said=$(ln -s nowhere link 2>&1) && [ -h link ] && echo symlinks; full "$said";'
    ' keeps() { touch -md "@$1" Case 2>/dev/null && [ "$(stat -c %Y Case)" = "$1" ]; };'
    f" keeps {FAR_TIMES[0]} && keeps {FAR_TIMES[1]} && echo far_times;"
    ' said=$(ln Case hard 2>&1) && echo hard_links; full "$said";'
    ' said=$( (: > "$6") 2>&1 ); full "$said"; [ -e "$7" ] && echo sharp_s;'
    " shift 7; number=0;"
    ' for name do said=$( (: > "./$name") 2>&1 ); full "$said"; [ -e "./$name" ] && echo "there_$number";'
    " number=$((number + 1)); done; : > last || exit 5;"
    ' printf "\\0"; find . -mindepth 1 -printf "%f\\0"; cd - >/dev/null; rm -rf -- "./$tried"'
)
NAMES: Final = _WITHIN + (
    'folder "$2"; [ -e "./$2" ] || exit 0; find "./$2" -mindepth 1 -printf "%y\\0%s\\0%P\\0%l\\0"'
)
# $2: a batch, $3: the folder for partial files; neither need be there. Of each file "w" or "p" with its size, and its
# path. An rsync that was ended a moment ago may be moving its file from the one to the other yet.
HELD: Final = _WITHIN + (
    'held() { folder "$1"; [ ! -e "./$1" ] ||'
    ' find "./$1" -ignore_readdir_race -mindepth 1 -type f -printf "$2%s\\0%P\\0"; };'
    ' held "$2" w; held "$3" p'
)
# $2: a folder; then names in it. Says "there" when one of them is, which may be a symlink that leads nowhere.
HOLDS_ANY: Final = _WITHIN + (
    'folder "$2"; [ -e "./$2" ] || exit 0; cd -- "./$2" || exit 5; shift 2;'
    ' for name do if [ -e "./$name" ] || [ -h "./$name" ]; then echo there; exit 0; fi; done'
)
# While it reads a large file it says so each second, by what the kernel has counted; where the kernel doesn't tell,
# that it runs must do.
HASH: Final = _ENTER + (
    '[ -z "$2" ] || cd -- "./$2" || exit 3; shift 2; sha256sum -zb -- "$@" & hashing=$!;'
    " (before=; while sleep 1 >/dev/null 2>&1; do now=; { read -r now < /proc/$hashing/io; } 2>/dev/null;"
    f' [ -n "$now" ] && [ "$now" = "$before" ] || echo "{ALIVE}" >&2; before=$now; done) &'
    " beating=$!; wait $hashing; code=$?; kill $beating; exit $code"
)
MAKE_FOLDER: Final = _WITHIN + 'folder "$2"; mkdir -p -- "./$2"'
MAKE_IN_INCOMING: Final = _WITHIN + (
    'folder "$2"; [ -d .labferry-incoming ] ||'
    f' {{ echo "{ROOT_MISSING}: $1 is another folder than before" >&2; exit 3; }}; mkdir -p -- "./$2"'
)
# $2: the run; then folders in it, each behind "./".
MAKE_FOLDERS: Final = _WITHIN + (
    'folder "$2"; cd -- "./$2" || exit 3; shift 2; for name do folder "${name#./}"; done; mkdir -p -- "$@"'
)
# $2: the run; then times and folders in it, in turn, which must be there by now. A folder that was there before may be
# another user's, in which we may write and no more: then it keeps its time.
DATE_FOLDERS: Final = _WITHIN + (
    'folder "$2"; cd -- "./$2" || exit 3; shift 2;'
    ' while [ $# -gt 1 ]; do folder "$2";'
    f' [ -d "./$2" ] || {{ echo "{FOLDER_MISSING}: $2" >&2; exit 5; }};'
    ' touch -chm -d "@$1" -- "./$2" 2>/dev/null || :; shift 2; done'
)
SYNC: Final = _ENTER + 'sync -f "./$2"'
# $2: the batch, $3: the run. A file that got its name has two of them: links make the landing exclusive.
LAND: Final = _WITHIN + (
    'batch=$2; run=$3; folder "$batch"; folder "$run";'
    ' sync -f "./$batch" && mkdir -p -- "./$run" || exit 5;'
    ' cp -rlnPT -- "./$batch" "./$run" >&2;'
    ' find "./$batch" ! -type d -links 1 -printf "%P\\0"; sync -f "./$run"'
)
# $2: the guard; then names and new names, in turn. A script outlives its engine, and one that stood still may go on
# when another engine has finished the job: then the guard is gone. Renamed in one step, for what is removed in a second
# one may be another's by then.
MOVE: Final = _WITHIN + (
    'fail() { echo "$1" >&2; exit 5; }; disk() { stat -c %d -- "$1" || exit 5; };'
    ' guard=$2; shift 2; before=; while [ $# -gt 1 ]; do above "$1"; above "$2"; s=./$1; d=./$2;'
    ' if [ "$before" != "${s%/*}//${d%/*}" ]; then before=${s%/*}//${d%/*};'
    ' mkdir -p -- "${d%/*}" && here=$(disk "${s%/*}") && there=$(disk "${d%/*}") || exit 5;'
    ' [ "$here" = "$there" ] || fail "$1: on another disk than $2"; fi;'
    ' [ -h "$s" ] || ! [ -d "$s" ] || fail "$1: a folder, which is not moved";'
    ' ! [ -h "$d" ] && ! [ -e "$d" ] || fail "$2: File exists";'
    f' [ -d "./$guard" ] || fail "{NOT_OURS}: $1"; mv -nT -- "$s" "$d" || exit 5; shift 2; done; sync -f .'
)
REPLACE: Final = _WITHIN + (
    'shift; while [ $# -gt 1 ]; do above "$2"; d=./$2; mkdir -p -- "${d%/*}" && mv -fT -- "./$1" "./$2" || exit 5;'
    ' sync -f "${d%/*}"; shift 2; done'
)
REMOVE: Final = _WITHIN + 'shift; for name do above "$name"; rm -rf -- "./$name" || exit 5; done'
CHILDREN: Final = _ENTER + ('[ -d "./$2" ] || exit 0; find "./$2" -mindepth 1 -maxdepth 1 -type d -printf "%f\\0"')
