"""Argo CD's Lua: scripts run as its controller runs them, by a real Lua 5.1, the language of gopher-lua.

What scripts may call is what Argo CD opens for them (util/lua/lua.go and oslib_safe.go of v3.6.1): the base library,
``table``, and ``require("os")`` with ``time`` and ``date``. There is no global ``os``, and no ``string`` or ``math``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lupa import lua51
from lupa.lua51 import LuaRuntime

from support.kube import Manifest

CUSTOMIZATIONS = Path(__file__).parents[2] / "manifests" / "argocd" / "resource_customizations"
HEALTH_STATUSES = frozenset({"Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown"})

_CLOSE_LIBRARIES = """
    local safe_os = {time = os.time, date = os.date}
    package.preload.os = function() return safe_os end
    package.path, package.cpath = "", ""
    getmetatable("").__index = nil
    for _, library in ipairs({"os", "io", "string", "math", "coroutine", "debug", "python"}) do
      package.loaded[library] = nil
      _G[library] = nil
    end
"""


class LuaError(Exception):
    """A script failed."""


def run(script: str, resource: Manifest) -> Any:
    """Run a script on a resource, which is its global ``obj``, and return what it returns."""
    runtime = LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    runtime.execute(_CLOSE_LIBRARIES)
    runtime.globals()["obj"] = runtime.table_from(resource, recursive=True)
    try:
        returned = runtime.execute(script)
    except lua51.LuaError as error:
        raise LuaError(str(error)) from error
    return _from_lua(returned, resource)


def _from_lua(value: Any, before: Any) -> Any:
    """Convert a value of Lua, in which an empty table is both; Argo CD (cleanReturnedObj) takes it for what it was."""
    if lua51.lua_type(value) != "table":
        return value
    keys = list(value)
    if not keys:
        return {} if isinstance(before, Mapping) else []
    if set(keys) == set(range(1, len(keys) + 1)):
        items = before if isinstance(before, list) else []
        return [_from_lua(value[key], items[key - 1] if key <= len(items) else None) for key in sorted(keys)]
    fields = before if isinstance(before, Mapping) else {}
    return {key: _from_lua(value[key], fields.get(key)) for key in keys}


def script(kind: str, *path: str) -> str:
    """Return a script of a kind of this project, such as ``health.lua``."""
    return CUSTOMIZATIONS.joinpath("anomalyops.io", kind, *path).read_text()


def health(resource: Manifest) -> tuple[str, str]:
    """Return the resource's health for Argo CD, and the message."""
    found = run(script(resource["kind"], "health.lua"), resource)
    assert found.keys() <= {"status", "message"}
    assert found["status"] in HEALTH_STATUSES
    return found["status"], found["message"]


def offered_actions(resource: Manifest) -> set[str]:
    """Return the names of the actions that can be chosen for a resource."""
    found = run(script(resource["kind"], "actions", "discovery.lua"), resource)
    return {name for name, action in found.items() if not action.get("disabled", False)}


def after_action(name: str, resource: Manifest) -> Manifest:
    """Return the resource as an action leaves it."""
    changed: Manifest = run(script(resource["kind"], "actions", name, "action.lua"), resource)
    return changed
