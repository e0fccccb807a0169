"""From `--function` and `--args` to what a worker needs to call a function (wire/body.py)."""

from typing import TYPE_CHECKING, Any

from tq.cli.frame import values
from tq.errors import BadRequest, TooLarge

if TYPE_CHECKING:
    from tq.cli.submitting.submit_options import SubmitOptions

_HINT = "write a list of what it is called with, as in '[1, \"a\"]', or a map by name, as in '{\"size\": 3}'"


def fields(wanted: "SubmitOptions") -> dict[str, Any]:
    """Return the fields of a body that calls a function. Raises BadRequest for what only a command can have."""
    commands = {
        "a command": wanted.command, "--cwd": wanted.cwd, "--env": wanted.env, "--env-all": wanted.env_all,
        "--shell": wanted.shell, "--tmpdir": wanted.tmpdir, "--stdin": wanted.stdin,
        "--stdout": wanted.stdout, "--stderr": wanted.stderr,
    }  # fmt: skip
    for what, is_given in commands.items():
        if is_given:
            raise BadRequest(f"{what} and --function exclude each other", hint=_way(wanted))
    return {
        "argv": (),
        "cwd": b"",
        "function": wanted.function,
        "arguments": packed(wanted.args) if wanted.args or not wanted.lent_arguments else wanted.lent_arguments,
        "has_plain_entries": wanted.has_items,
    }


def packed(text: str) -> bytes:
    """Return the arguments that JSON names: a list of positional ones, or a map by name."""
    import msgspec

    from tq.client.sansio.function_call import pack

    try:
        said = msgspec.json.decode(text) if text else []
    except msgspec.DecodeError as error:
        raise BadRequest(f"--args is not JSON: {values.why_no_json(text, error)}", hint=_HINT) from None
    except RecursionError:
        raise TooLarge("--args is nested too deeply (depth_max)") from None
    if not isinstance(said, list | dict):
        raise BadRequest("--args is neither a list nor a map", hint=_HINT)
    arguments = pack(said, {}) if isinstance(said, list) else pack((), said)
    if "{" in text:
        values.check_keys(text, "--args")
    return arguments


def _way(wanted: "SubmitOptions") -> str:
    if ":::" in wanted.command and not wanted.is_dashed:
        return "write -- before the first :::, as in `tq submit --function MODULE:NAME -- ::: a b`"
    return "a function runs where its worker was started; give it --args"


def shown(arguments: bytes) -> Any:
    """Return packed arguments as JSON says them: as `--args` would take them, or both kinds."""
    from tq.wire import plain

    positional, named = plain.loads(arguments)
    return [positional, named] if positional and named else positional or named
