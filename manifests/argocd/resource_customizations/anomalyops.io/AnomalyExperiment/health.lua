-- Health of an AnomalyExperiment or AnomalyInference. Their status follows kstatus: observedGeneration, Reconciling, Stalled.

-- The first of these conditions that is True decides.
local verdicts = {
  {condition = "Failed", health = "Degraded"},
  {condition = "Stalled", health = "Degraded"},
  {condition = "Complete", health = "Healthy"},
  {condition = "Suspended", health = "Suspended"},
  {condition = "Reconciling", health = "Progressing"},
}

local function find_true(kind)
  for _, condition in ipairs(obj.status.conditions or {}) do
    if condition.type == kind and condition.status == "True" then
      return condition
    end
  end
end

-- A variable is never assigned `a and b` here once it has a value: Argo CD's Lua (gopher-lua) then keeps the old one.
local function details(condition)
  if condition.message ~= nil and condition.message ~= "" then
    return condition.message
  end
  return obj.status.display and obj.status.display.progress
end

local function explanation(condition)
  local text = details(condition)
  if text == nil then
    return condition.reason
  elseif condition.reason == condition.type then
    return text
  end
  return condition.reason .. ": " .. text
end

-- The status of a run that is over says nothing about a spec that was changed since: it runs again.
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not seen this spec yet"}
end

for _, verdict in ipairs(verdicts) do
  local condition = find_true(verdict.condition)
  if condition ~= nil then
    return {status = verdict.health, message = explanation(condition)}
  end
end
return {status = "Progressing", message = "the operator has not said anything about this run yet"}
