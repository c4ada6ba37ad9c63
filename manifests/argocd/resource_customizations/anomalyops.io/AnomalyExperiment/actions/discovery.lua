local policy = obj.spec.runPolicy or {}
local phase = obj.status and obj.status.phase
local over = phase == "Complete" or phase == "Failed"

return {
  suspend = {iconClass = "fa fa-fw fa-pause", disabled = over or policy.suspend == true},
  resume = {iconClass = "fa fa-fw fa-play", disabled = policy.suspend ~= true},
  rerun = {iconClass = "fa fa-fw fa-redo", disabled = not over},
}
