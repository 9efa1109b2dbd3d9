-- Health of every kind of opensearch-access.io, for Argo CD.
local function said(status, message)
  return { status = status, message = message }
end

if obj.metadata.deletionTimestamp ~= nil then
  return said("Progressing", "deleted: it goes once it is revoked")
end
local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready = conditions.Ready
if ready == nil or (status.observedGeneration or ready.observedGeneration) ~= obj.metadata.generation then
  return said("Progressing", "the operator has not looked at it yet")
end
if ready.status == "True" then
  return said("Healthy", ready.message)
end
-- By its admin's word nothing is written.
if ready.reason == "Suspended" or ready.reason == "Observed" then
  return said("Suspended", ready.message)
end
if conditions.Stalled ~= nil and conditions.Stalled.status == "True" then
  return said("Degraded", ready.reason .. ": " .. ready.message)
end
return said("Progressing", ready.reason .. ": " .. ready.message)
