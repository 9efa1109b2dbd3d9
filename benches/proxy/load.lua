-- Sends one request over and over, and says in JSON what came of it.
-- Argument: the length of the body; without one it is a GET.

function init(arguments)
   local length = tonumber(arguments[1])
   if length > 0 then
      wrk.method = "POST"
      wrk.headers["Content-Type"] = "application/x-ndjson"
      wrk.body = string.rep("x", length)
   end
end

function done(summary, latency)
   local errors = summary.errors
   local form = '{"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"errors":%d}\n'
   io.write(form:format(
      summary.requests,
      summary.duration,
      latency:percentile(50),
      latency:percentile(99),
      errors.connect + errors.read + errors.write + errors.status + errors.timeout
   ))
end
