"""What people type who come from elsewhere, and what it is called here.

Verbs of Slurm, task-spooler, Pueue and of any shell, and options of those verbs. A hint only: nothing here is an alias.
"""

from typing import Final

VERBS: Final = {
    "list": "ls",
    "ps": "ls",
    "jobs": "ls",
    "squeue": "ls",
    "sacct": "ls",
    "history": "ls",
    "info": "show",
    "inspect": "show",
    "status": "",
    "top": "",
    "kill": "cancel",
    "rm": "cancel",
    "stop": "cancel",
    "scancel": "cancel",
    "suspend": "hold",
    "pause": "hold",
    "stash": "hold",
    "resume": "release",
    "enqueue": "release",
    "restart": "retry",
    "delete": "forget",
    "remove": "forget",
    "purge": "forget",
    "clean": "forget",
    "clear": "forget",
    "queues": "queue",
    "group": "queue",
    "parallel": "queue set --max",
    "check": "doctor",
    "sbatch": "submit",
    "add": "submit",
    "log": "logs",
    "tail": "logs",
    "cat": "logs",
    "output": "logs",
    "follow": "logs -f",
    "start": "up",
    "exec": "run",
    "srun": "run",
    "nodes": "workers",
    "sinfo": "workers",
    "tokens": "token",
    "version": "--version",
}
_NO_SCHEDULES: Final = "there are no schedules yet: let cron, at or a systemd timer run `tq submit`"
_NO_FLOWS: Final = "there are no flows yet: `tq wait 42 && tq submit -- make` submits after the end of another"
_NO_DEMANDS: Final = (
    "there are no demands for memory, GPUs or machines yet: give such workers a queue, `tq worker --queue gpu`"
)
_NO_USERS: Final = "tq has no users: select with --tag or --name"
_SORTED: Final = "-o json has times and all else: `tq ls 42 -n 0 -o json | jq '.items | sort_by(.run_s)'`"
_ANEW: Final = (
    "of a job only these change: its priority, and how much of an array runs at once; "
    "`tq submit --like 42` with such an option makes another one: cancel 42"
)
_NULLS: Final = (
    "an entry ends with its line; names that have line ends in them go by JSON: "
    "find -print0 | jq -Rs 'split(\"\\u0000\")[:-1]' | `tq submit --from-json -`"
)
_TASKS: Final = "a task is one process on one worker; `tq submit --array 1-4` makes four of them"


def _each(names: str, hint: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), hint)


def _all(verb: str) -> dict[str, str]:
    return _each("-a --all", f"it is a word like an id: `tq {verb} all`")


NOT_YET: Final = {**_each("cron crontab schedule at every", _NO_SCHEDULES), **_each("flow dag graph", _NO_FLOWS)}
_OF_SUBMIT: Final = {
    **_each("--cron --schedule --every --at --begin --delay", _NO_SCHEDULES),
    **_each("--after --depends --dependency --depends-on -d", _NO_FLOWS),
    **_each("--mem --mem-per-cpu --gres --gpu --gpus -G --nodelist --constraint -C --exclusive", _NO_DEMANDS),
    **_each("-n --ntasks -N --nodes", _TASKS),
    **_each("--jobs -P --max-procs --parallel", "it is called -j, or --at-once"),
    **_each("-C --delimiter --sep --ifs", "it is called --colsep"),
    **_each("-J --job-name --label -l", "it is called --name"),
    **_each("-p --partition -g --group", "it is called --queue"),
    **_each("-c --cpus-per-task --ncpus", "it is called --cpus"),
    **_each("-t --time --timeout --walltime", "it is called --time-limit, as in 90, 5m, 1h30m"),
    **_each("-D --chdir --workdir -w --working-directory", "it is called --cwd"),
    **_each("-a", "it is called --array"),
    **_each("-e --export", "variables are set by --env NAME=VALUE; files take output by --stdout and --stderr"),
    **_each("--error", "it is called --stderr"),
    **_each("--nice", "it is called --priority"),
    **_each("-0 --null --print0", _NULLS),
    **_each("--requeue", "it is called --retries"),
    **_each("--stashed", "it is called --hold"),
    **_each("--wrap", "write the command behind --, with --shell if a shell is to read it"),
    **_each("--mail-type --mail-user", "nothing is mailed: `tq wait 42; mail -s done me`"),
}
_OF_RUN: Final = {
    **_OF_SUBMIT,
    **_each("-a", "`tq submit` has it: --array"),
    **_each("--stashed", "`tq submit` has it: --hold"),
    **_each("--jobs -P --max-procs --parallel", "`tq submit` has it: -j"),
    **_each("-C --delimiter --sep --ifs", "`tq submit` has it: --colsep"),
}
_OPTIONS: Final = {
    **{f"tq {verb}": _all(verb) for verb in ("hold", "release", "requeue", "retry", "rerun", "forget")},
    "tq": _each("-v -V", "it is called --version"),
    "tq submit": _OF_SUBMIT,
    "tq run": _OF_RUN,
    "tq ls": {
        **_each("-a --all", "all jobs are listed, newest first; -n 0 has no bound"),
        **_each("-l --long --format", "-o json has everything, `tq show 42` all of one job"),
        **_each("-u --user --me", _NO_USERS),
        **_each("-t --states -s", "it is called --state"),
        **_each("-w --watch -f --follow -i --iterate", "let `watch tq ls` look again and again"),
        **_each("-j --jobs", "write the job behind it: `tq ls 42`"),
        **_each("--sort --order --sort-by --reverse -r", _SORTED),
    },
    "tq set": {
        **_all("set"),
        **_each("--time-limit --retries --backoff --cwd --env --cpus --max-fails --stdout --stderr --timeout", _ANEW),
        **_each("--max --throttle", "`tq queue set NAME --max 4` bounds a queue, `tq set ID --at-once 4` an array"),
        **_each("--nice -p", "it is called --priority"),
    },
    "tq logs": _each("--lines --last -t", "it is called --tail, or -n"),
    "tq cancel": {
        **_all("cancel"),
        **_each("-s", "it is called --signal"),
        **_each("-9 -f --force", "it is called --signal KILL"),
        **_each("-y", "it is called --yes"),
        **_each("-u --user --me", _NO_USERS),
    },
    "tq wait": {**_all("wait"), **_each("-t", "it is called --timeout")},
    "tq up": _each("-j --jobs -P --parallel -c --cpus", "it is called --slots"),
    "tq worker": _each("-j --jobs -P --parallel -c", "it is called --slots"),
}


def of_option(path: str, name: str) -> str:
    """Return what stands for an option that a verb does not have, "" for one that nobody would look for."""
    return _OPTIONS.get(path, {}).get(name, "")
