"""From `--function` and `--args` to what a worker needs to call a function (wire/body.py)."""

from typing import TYPE_CHECKING, Any

from tq.cli.frame import values
from tq.errors import BadRequest, TooLarge

if TYPE_CHECKING:
    from tq.cli.submitting.submit_options import SubmitOptions

_HINT = "write a list of what it is called with, as in '[1, \"a\"]', or a map by name, as in '{\"size\": 3}'"


def fields(wish: "SubmitOptions") -> dict[str, Any]:
    """Return the fields of a body that calls a function. Raises BadRequest for what only a command can have."""
    commands = {
        "a command": wish.command, "--cwd": wish.cwd, "--env": wish.env, "--env-all": wish.env_all,
        "--shell": wish.shell, "--tmpdir": wish.tmpdir, "--stdin": wish.stdin,
        "--stdout": wish.stdout, "--stderr": wish.stderr,
    }  # fmt: skip
    for what, is_given in commands.items():
        if is_given:
            raise BadRequest(f"{what} and --function exclude each other", hint=_way(wish))
    return {
        "argv": (),
        "cwd": b"",
        "function": wish.function,
        "arguments": packed(wish.args) if wish.args or not wish.lent_arguments else wish.lent_arguments,
        "has_plain_entries": wish.has_items,
    }


def packed(text: str) -> bytes:
    """Return the arguments that JSON names: a list of positional ones, or a map by name."""
    import msgspec

    from tq.client.sansio.function_call import pack

    try:
        said = msgspec.json.decode(text) if text else []
    except msgspec.DecodeError as error:
        raise BadRequest(f"--args is no JSON: {values.why_no_json(text, error)}", hint=_HINT) from None
    except RecursionError:
        raise TooLarge("--args is nested too deeply (depth_max)") from None
    if not isinstance(said, list | dict):
        raise BadRequest("--args is neither a list nor a map", hint=_HINT)
    arguments = pack(said, {}) if isinstance(said, list) else pack((), said)
    if "{" in text:
        values.check_keys(text, "--args")
    return arguments


def _way(wish: "SubmitOptions") -> str:
    if ":::" in wish.command and not wish.is_dashed:
        return "write -- before the first :::, as in `tq submit --function MODULE:NAME -- ::: a b`"
    return "a function runs where its worker was started; give it --args"


def shown(arguments: bytes) -> Any:
    """Return packed arguments as JSON says them: as `--args` would take them, or both kinds."""
    from tq.wire import plain

    positional, named = plain.loads(arguments)
    return [positional, named] if positional and named else positional or named
