-- Health of an AnomalyExperiment or AnomalyInference. Their status follows kstatus: observedGeneration, Reconciling, Stalled.
--
-- No variable that has a value is assigned `a and b` here: Argo CD's Lua (gopher-lua) keeps the value where `a` is nil.

local health_of_phase = {Complete = "Healthy", Failed = "Degraded", Suspended = "Suspended"}

-- Of these conditions the first that is True explains the run.
local explaining = {"Failed", "Stalled", "Complete", "Suspended", "Reconciling"}

local function find_true(kind)
  for _, condition in ipairs(obj.status.conditions or {}) do
    if condition.type == kind and condition.status == "True" then
      return condition
    end
  end
end

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

local function message()
  for _, kind in ipairs(explaining) do
    local condition = find_true(kind)
    if condition ~= nil then
      return explanation(condition)
    end
  end
  return obj.status.phase
end

-- The status of a run that is over says nothing about a spec that was changed since: it runs again.
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not seen this spec yet"}
elseif find_true("Stalled") then
  return {status = "Degraded", message = message()}
end
return {status = health_of_phase[obj.status.phase] or "Progressing", message = message()}
